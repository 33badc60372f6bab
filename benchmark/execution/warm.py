"""Imported by the fork server only: what every cell would otherwise find out anew is found out once, before the fork."""

from adlbench.benchmark import cell, environment

environment.packages()
environment.code_version()
environment.cpu_model()
__all__ = ["cell"]
