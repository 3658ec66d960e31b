"""The target ``bits``: binary networks as packed signs and a list of operations, for an engine of our own. Everything
that is true of that engine alone may enter; no other target imports this."""

from ptq4vm.exporting.targets.bits.target import BitsTarget

__all__ = ["BitsTarget"]
