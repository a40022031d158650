"""Plain PyTorch and NumPy twins of the operators: the same names and signatures, written to be read.

They are the specification that the kernels are tested against. Nothing in serfast falls back to them.
"""

from serfast.reference.attention_pool import attention_pool
from serfast.reference.blstm import blstm
from serfast.reference.linear import linear

__all__ = ["attention_pool", "blstm", "linear"]
