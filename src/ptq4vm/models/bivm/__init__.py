"""BiVM: 1-bit video matting, and the binary networks that it is compared with; the family ``bivm``."""

from ptq4vm.models.bivm.family import BiVMFamily

__all__ = ["BiVMFamily"]
