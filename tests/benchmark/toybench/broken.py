"""A module that cannot be imported."""

raise RuntimeError("this library is not for your processor")
