"""One cell on several devices: a process for each, which computes its share of every batch; gradients are averaged.

The processes ("ranks") build the same method from the same seeds. A rank's context hands it its share of each batch
(`Context.loader`, `Context.share`); when a backward pass ends, gradients are averaged over the ranks, before clipping and the
optimizer's step. So a step is that of one process with the whole batch, where the loss is a mean over its items. Rank 0
has the clock: it says how many steps come next, logs, writes checkpoints, and evaluates alone.

A method takes part by `shares_batches`. What cannot be known from that is checked while it runs: the ranks' parameters must
stay the same.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from adlbench.benchmark.errors import AdlbenchError

DRIFT = 1e-6  # of the sums over all parameters, relative
PATIENCE = datetime.timedelta(days=7)  # ranks wait while rank 0 writes and prints; one that died ends the cell (_watch)
Normalisation = nn.modules.batchnorm._BatchNorm


class Ranks:
    """This process among those of its cell. With one device all of this does nothing."""

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size
        self._children: dict[int, int] = {}  # pid -> rank
        self._lost = ""
        self._ready: dict[int, nn.Parameter] = {}
        self._numbers: dict[nn.Parameter, int] = {}
        self._method: Any = None

    def device(self, name: str) -> torch.device:
        """Consecutive accelerators from the cell's own on; ranks share a CPU."""
        device = torch.device(name)
        if self.size == 1 or device.type == "cpu":
            return device
        return torch.device(device.type, (device.index or 0) + self.rank)

    # ---------------------------------------------------------------------------------------------------- orders
    def order(self, steps: int, progress: float) -> None:
        """Rank 0 says what comes next: so many steps from that progress on; 0 steps: the end."""
        if self.size > 1:
            dist.broadcast(torch.tensor([float(steps), progress], dtype=torch.float64), 0)

    def orders(self) -> Iterator[tuple[int, float]]:
        """What rank 0 orders, for the others."""
        while True:
            order = torch.zeros(2, dtype=torch.float64)
            dist.broadcast(order, 0)
            if order[0] == 0:
                return
            yield int(order[0]), float(order[1])

    def agree(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """The values of a step, averaged over the ranks. Raises AdlbenchError where their parameters differ."""
        found = {name: float(value) for name, value in values.items()}
        if self.size == 1:
            return found
        mine = torch.tensor([*found.values(), *_fingerprint(self._parameters())], dtype=torch.float64)
        everyone = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(everyone, mine)
        sums = torch.stack(everyone)[:, len(found) :]
        if (sums - sums[0]).abs().max() > DRIFT * (sums[0].abs().max() + 1):
            raise AdlbenchError(
                f"devices={self.size}: the devices' copies of {type(self._method).__name__} differ: its step does more "
                "with a share of the batch than averaging gradients mends; use devices=1"
            )
        return dict(zip(found, torch.stack(everyone).mean(0).tolist()))

    def total(self, values: Tensor) -> Tensor:
        """Summed over the ranks; bit-equal on each, as one rank sums each part and hands it to the others."""
        if self.size == 1:
            return values
        summed = values.clone()
        dist.all_reduce(summed)
        return summed

    # ------------------------------------------------------------------------------------------------- gradients
    def attach(self, method: Any, device: torch.device) -> None:
        """Average the gradients of the method's parameters, and the statistics of its batch normalisations.

        Raises AdlbenchError for batch normalisation on a CPU, where torch has none over several processes.
        """
        if self.size == 1:
            return
        self._method = method
        for name, module in [(k, v) for k, v in vars(method).items() if isinstance(v, nn.Module)]:
            if not any(isinstance(part, Normalisation) for part in module.modules()):
                continue
            if device.type == "cpu":
                raise AdlbenchError(
                    f"devices={self.size}: {type(method).__name__}.{name} normalises over the batch, which several "
                    "processes can only do on GPUs (SyncBatchNorm); use devices=1 or a method without it"
                )
            setattr(method, name, nn.SyncBatchNorm.convert_sync_batchnorm(module))  # parameters stay the same objects
        for number, parameter in enumerate(self._parameters()):
            self._numbers[parameter] = number
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._arrived)

    def _parameters(self) -> list[nn.Parameter]:
        """Of the method's networks and optimizers, each once, in the same order on every rank."""
        found: dict[int, nn.Parameter] = {}
        for value in vars(self._method).values():
            if isinstance(value, nn.Module):
                found |= {id(parameter): parameter for parameter in value.parameters()}
            elif isinstance(value, torch.optim.Optimizer):
                found |= {id(p): p for group in value.param_groups for p in group["params"]}
        return list(found.values())

    def _arrived(self, parameter: nn.Parameter) -> None:
        if not self._ready:  # as torch's own DistributedDataParallel does: called when this backward pass is complete
            torch.autograd.Variable._execution_engine.queue_callback(self._average)  # type: ignore[attr-defined]
        self._ready[self._numbers[parameter]] = parameter

    def _average(self) -> None:
        """One exchange for all gradients of a backward pass. Gradients that a method accumulates stay right: a mean of
        sums is the sum of means."""
        parameters = [self._ready[number] for number in sorted(self._ready)]
        self._ready.clear()
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for kind in dict.fromkeys((gradient.dtype, gradient.device) for gradient in gradients):
            same = [gradient for gradient in gradients if (gradient.dtype, gradient.device) == kind]
            flat = torch.cat([gradient.flatten() for gradient in same])
            dist.all_reduce(flat)
            flat /= self.size
            for gradient, part in zip(same, flat.split([gradient.numel() for gradient in same])):
                gradient.copy_(part.view_as(gradient))

    # ------------------------------------------------------------------------------------------------- processes
    @contextlib.contextmanager
    def started(self, follow: Callable[[Ranks], None], devices: int, work: Path, device: str) -> Iterator[None]:
        """In rank 0: fork the others, each of which runs ``follow`` and ends. Call it before anything is computed."""
        if devices == 1:
            yield
            return
        self.size = devices
        meeting = work / f".ranks-{os.getpid()}-{time.monotonic_ns()}"
        if torch.device(device).type == "cpu":
            torch.set_num_threads(max(1, torch.get_num_threads() // devices))
        sys.stdout.flush()
        sys.stderr.flush()
        for rank in range(1, devices):
            pid = os.fork()
            if pid == 0:
                self.rank = rank
                self._follow(follow, meeting, device)
            self._children[pid] = rank
        try:
            self._meet(meeting, device)
            threading.Thread(target=self._watch, args=(dict(self._children),), daemon=True).start()
            yield
        except RuntimeError as error:  # an exchange that failed: its words speak of sockets
            time.sleep(1.0)
            if self._lost:
                raise AdlbenchError(f"devices={devices}: {self._lost}; log.txt says why") from error
            raise
        finally:
            self._end()
            meeting.unlink(missing_ok=True)

    def _meet(self, meeting: Path, device: str) -> None:
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):  # one machine: nothing is to listen outside
            os.environ.setdefault(name, "lo")
        mine, gpu = self.device(device), torch.device(device).type == "cuda"
        if gpu:
            torch.cuda.set_device(mine)
        store = dist.FileStore(str(meeting), self.size)
        backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
        dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.size, timeout=PATIENCE)

    def _follow(self, follow: Callable[[Ranks], None], meeting: Path, device: str) -> None:
        code = 1
        try:
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: with rank 0
            for number in (signal.SIGTERM, signal.SIGINT):  # rank 0 is asked to end, and says so in its orders
                signal.signal(number, signal.SIG_IGN)
            self._children = {}
            self._meet(meeting, device)
            follow(self)
            code = 0
        except AdlbenchError as error:  # rank 0 says the same
            print(f"rank {self.rank}: {error}", file=sys.stderr)
        except BaseException:
            print(f"rank {self.rank}:", file=sys.stderr)
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _watch(self, children: dict[int, int]) -> None:
        """End the cell when a rank is lost: the others would wait for it for ever. The cell's log says why it ended."""
        while children:
            for pid in list(children):
                with contextlib.suppress(ChildProcessError):
                    ended, status = os.waitpid(pid, os.WNOHANG)
                    if not ended:
                        continue
                    if status != 0 and self._children:
                        self._lost = f"rank {children[pid]} ended with exit code {os.waitstatus_to_exitcode(status)}"
                        time.sleep(5.0)  # rank 0 may have the same trouble, or notice, and tells it better
                        if self._children:
                            os._exit(1)
                del children[pid]
            time.sleep(0.2)

    def _end(self) -> None:
        children, self._children = self._children, {}
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if dist.is_initialized():
            dist.destroy_process_group()


def _fingerprint(parameters: list[nn.Parameter]) -> tuple[float, float]:
    with torch.no_grad():
        total = sum((p.double().sum() for p in parameters), torch.zeros((), dtype=torch.float64))
        square = sum((p.double().square().sum() for p in parameters), torch.zeros((), dtype=torch.float64))
    return float(total), float(square)
