import subprocess
import sys

import pytest
import torch

from serfast import ops
from serfast.ops import resolve_device


def test_the_cpu_is_always_there():
    assert resolve_device("cpu") == torch.device("cpu")


def test_auto_means_cuda_only_where_its_kernels_were_built():
    expected = "cuda" if torch.cuda.is_available() and ops.has_cuda_kernels() else "cpu"
    assert resolve_device("auto").type == expected


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="device must be auto, cpu or cuda, got 'tpu'"):
        resolve_device("tpu")
    with pytest.raises(ValueError, match="device must be"):
        resolve_device("cuda:99")


def test_without_the_cuda_module_cuda_is_refused_and_the_rest_works():
    program = (
        "import sys\n"
        "sys.modules['serfast._C_cuda'] = None\n"
        "import serfast, torch\n"
        "from serfast.ops import attention_pool, has_cuda_kernels, resolve_device\n"
        "assert not has_cuda_kernels()\n"
        "attention_pool(torch.ones(3, 2), torch.tensor([3]), torch.ones(2))\n"
        "try:\n    resolve_device('cuda')\n"
        "except ValueError as error:\n    print(error)\n"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "SERFAST_CUDA=1 pip install" in process.stdout
