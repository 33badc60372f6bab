"""Imported by the fork server only, last: what every cell would otherwise find out anew is found out once, before the fork."""

import atexit
import gc
import importlib
import io
import os
import pkgutil

import torch
from PIL import Image, ImageDraw
from torch.utils.flop_counter import FlopCounterMode

from adlbench.benchmark import cli, environment, plan, records
from adlbench.benchmark.execution import process
from adlbench.benchmark.prepare import manifest

for module in pkgutil.iter_modules(
    cli.__path__
):  # Python runs the command line anew in every child, as its main module
    if module.name != "main":
        importlib.import_module(f"{cli.__name__}.{module.name}")
environment.describe(torch.device("cpu"))  # starts a process to ask for the platform
environment.code_version()
plan._adapter()
records._adapter()
manifest._adapter()
process.pools()
torch.save({}, io.BytesIO())
picture = Image.new("RGB", (8, 8))
ImageDraw.Draw(picture).text((0, 0), "a")
picture.save(io.BytesIO(), "png")  # imports the formats
with FlopCounterMode(display=False):  # imports torch._dynamo at its first operation: 1.4 s of every cell
    torch.ones(1, device="meta").add(1)  # without data there is no thread to be lost in the fork
atexit.register(os._exit, 0)  # the server has nothing to finish, and triton would list its leaks on the user's screen
gc.freeze()  # else the first collection in a cell writes to, and so copies, every page that holds an object
