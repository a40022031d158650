"""What the doors of the operators check alike: types that go together, one device."""

import torch
from torch import Tensor

__all__ = ["DTYPES", "check_type_and_device"]

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def check_type_and_device(name: str, tensor: Tensor, partner_name: str, partner: Tensor) -> None:
    """Check that a parameter goes with the data: of its type, or float32 beside half types, and on its device.

    Raises:
        TypeError: if the type does not go with that of ``partner``.
        ValueError: if the device differs.
    """
    is_half = partner.dtype in (torch.bfloat16, torch.float16)
    if tensor.dtype != partner.dtype and not (is_half and tensor.dtype == torch.float32):
        wanted = f"{partner.dtype} or torch.float32" if is_half else f"{partner.dtype}"
        raise TypeError(f"{name} must be {wanted} to go with {partner_name}, got {tensor.dtype}")
    if tensor.device != partner.device:
        raise ValueError(f"{name} must be on {partner.device} like {partner_name}, got {tensor.device}")
