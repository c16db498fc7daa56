"""What a GPU makes of it: right or wrong, how fast, against what is possible.

    python benchmarks/gpu.py --minutes 8           (a table, and outputs/bench/gpu.json, written after every row)
    python benchmarks/gpu.py --only steps text     (these stages alone)
    python benchmarks/gpu.py --device cpu --small  (a rehearsal without a GPU, in three minutes)

It needs no network, no Jupyter and no open_clip (the stage of the text tower says so and is left out). NW-UCLA is taken
where it is prepared in data/prepared/ucla, else the built-in synthetic clips. A stage that fails is a row of the table;
one that would begin with too little time left is left out and says so.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests" / "helpers")]

from fixed_weights import fixed_input, fixed_state  # noqa: E402
from plain import PlainNetwork  # noqa: E402

from bpilib.config import Config, resolve  # noqa: E402
from bpilib.data import SkeletonStore, prepare  # noqa: E402
from bpilib.evaluate import Scores, ensemble, predict  # noqa: E402
from bpilib.feeders import Feeder  # noqa: E402
from bpilib.losses import skeleton_text_loss  # noqa: E402
from bpilib.model import build_model  # noqa: E402
from bpilib.reference import load_reference_weights  # noqa: E402
from bpilib.skeleton import MODALITIES, NTU, SKELETONS, UCLA, Skeleton  # noqa: E402
from bpilib.system import checkpoint  # noqa: E402
from bpilib.system.device import autocast, compile_network, full_float32, product_precision  # noqa: E402
from bpilib.system.scratch import scratch_folder  # noqa: E402
from bpilib.train import fit  # noqa: E402
from bpilib.training.trainer import Trainer  # noqa: E402

GOLDENS = {"bpi_joint_ntu": "bpi", "bpi_joint_ucla": "bpi", "gap_joint_ntu": "gap", "ctrgcn_ntu": "ctrgcn"}
NUM_CLASSES = 60
EMBED_DIM = 384
LEAST_SECONDS = 20  # left, for a stage to begin
GOLDEN_BOUND = 1e-4  # of the largest difference between two clips, in float32
GRADIENT_BOUND = 1e-3  # of the norm, in float32: a sum in another order may flip a relu


class Bench:
    """One run of the benchmark: its settings, its clock, and the rows found so far.

    Attributes:
        device: "cuda" or "cpu".
        small: sizes for a rehearsal.
        file: JSON of all rows so far.
        scratch: folder of runs and stores, removed at the end.
    """

    def __init__(self, device: str, minutes: float, small: bool, file: Path, scratch: Path):
        self.device = device
        self.minutes = minutes
        self.small = small
        self.file = file
        self.scratch = scratch
        self.started = time.monotonic()
        self.rows: dict[str, dict[str, Any]] = {}

    @property
    def on_gpu(self) -> bool:
        """Whether it is for real."""
        return self.device != "cpu"

    def seconds_left(self) -> float:
        """Until the time asked for is over."""
        return 60 * self.minutes - (time.monotonic() - self.started)

    def add(self, name: str, found: str, **numbers: Any) -> None:
        """A row of the table, printed and written at once."""
        self.rows[name] = {"found": found} | numbers
        print(f"{time.monotonic() - self.started:5.0f} s  {name:52} {found}", flush=True)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps(self.rows, indent=1, default=str) + "\n")

    def wait(self) -> None:
        """For all that the GPU has to do."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def milliseconds(self, work: Callable[[], object]) -> float:
        """One of many calls in a row: the median of rounds that end with a wait, after calls to warm up."""
        for _ in range(1 if self.small else 3):
            work()
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        once = time.perf_counter() - start
        if self.small:
            return 1000 * once
        count = max(1, min(50, int(0.1 / max(once, 1e-6))))
        rounds = []
        for _ in range(4):
            start = time.perf_counter()
            for _ in range(count):
                work()
            self.wait()
            rounds.append((time.perf_counter() - start) / count)
        return 1000 * statistics.median(rounds)

    def kernels(self, work: Callable[[], object]) -> tuple[int, float]:
        """Kernels and copies of a call, and the milliseconds that the GPU is busy with them; 0, 0.0 without a GPU."""
        if not self.on_gpu:
            return 0, 0.0
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            work()
            self.wait()
        events = [event for event in seen.events() if event.device_type == torch.autograd.DeviceType.CUDA]
        return len(events), sum(event.time_range.elapsed_us() for event in events) / 1000

    def waits(self, work: Callable[[], object]) -> Counter[str]:
        """Line → times that a call makes the host wait for the GPU, as PyTorch's own debug mode counts."""
        if not self.on_gpu:
            return Counter()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        found = (w for w in caught if "synchronizing" in str(w.message))
        return Counter(f"{Path(w.filename).name}:{w.lineno}" for w in found)

    def peak_gb(self, work: Callable[[], object]) -> float:
        """GPU memory that a call takes at most, beyond what is held before it."""
        if not self.on_gpu:
            return 0.0
        self.wait()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        self.wait()
        return (torch.cuda.max_memory_allocated() - before) / 1e9

    def store(self) -> SkeletonStore:
        """NW-UCLA's clips, or the synthetic ones of their shape."""
        place = PROJECT / "data/prepared/ucla"
        if place.exists() and not self.small:
            return SkeletonStore.open(place)
        place = self.scratch / "synthetic"
        if not (place / "manifest.json").exists():
            few = {"subjects": 2, "episodes": 1} if self.small else {}
            prepare("synthetic", raw=self.scratch / "raw", out=place, progress=False, **few)
        return SkeletonStore.open(place)

    def config(self, tag: str, **changes: Any) -> Config:
        """Of a run of BPI on these clips, in its own directory."""
        store = self.store()
        given = {"dataset": store.dataset, "data": str(store.path), "outputs": str(self.scratch / "outputs"),
                 "model": "bpi", "text": "minilm", "device": self.device, "width": 8 if self.small else 64,
                 "precision": "fp32" if self.small else "bf16", "seed": 0, "tag": tag}  # fmt: skip
        return resolve(**(given | changes))

    def network(self, name: str, skeleton: Skeleton, width: int = 64) -> torch.nn.Module:
        """On the host; its topology matters from the start."""
        torch.manual_seed(0)
        width = 8 if self.small else width
        model = build_model(name, skeleton, NUM_CLASSES, embed_dim=EMBED_DIM, width=width).train()
        with torch.no_grad():
            for block in model.backbone.blocks:
                block.spatial.alpha.fill_(0.5)
                block.spatial.bn.weight.fill_(1.0)
        return model

    def batch(self, skeleton: Skeleton, parts: int, clips: int, device: str) -> tuple[torch.Tensor, ...]:
        """x, labels and texts, drawn on the host, the same for every device."""
        draw = torch.Generator().manual_seed(1)
        x = torch.randn(clips, 3, skeleton.window, skeleton.num_joints, skeleton.persons, generator=draw)
        texts = torch.randn(1 + parts, clips, EMBED_DIM, generator=draw)
        return x.to(device), (torch.arange(clips) % 10).to(device), texts.to(device)

    def precisions(self) -> tuple[str, ...]:
        """Those that the device has."""
        return ("fp32", "tf32", "bf16", "fp16") if self.on_gpu else ("fp32", "bf16")

    @contextlib.contextmanager
    def precision(self, name: str) -> Any:
        """A forward pass in it."""
        with product_precision(name), autocast(name, torch.device(self.device))[0]:
            yield


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the expected norm."""
    found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
    return float((found - expected).norm() / expected.norm().clamp(min=1e-300))


def listed(numbers: dict[str, float]) -> str:
    """Names and numbers in a line."""
    return ", ".join(f"{name} {number:.0e}" for name, number in numbers.items())


def machine(bench: Bench) -> None:
    """Card, versions, packages."""
    facts: dict[str, Any] = {"torch": torch.__version__, "python": platform.python_version(), "cores": os.cpu_count()}
    if bench.on_gpu:
        card = torch.cuda.get_device_properties(0)
        facts |= {"gpu": card.name, "memory_gb": round(card.total_memory / 1e9), "cuda": torch.version.cuda}
        facts |= {"cudnn": torch.backends.cudnn.version()}
    facts |= {name: importlib.util.find_spec(name) is not None for name in ("open_clip", "triton", "papermill")}
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=PROJECT, capture_output=True, text=True)
    facts |= {"commit": git.stdout.strip() or "unknown", "date": time.strftime("%Y-%m-%d")}
    bench.add("machine", ", ".join(f"{name} {value}" for name, value in facts.items()), **facts)


def goldens(bench: Bench) -> None:
    """The published networks' numbers, as trained and fused.

    float32: the largest difference in units of that between two clips; other precisions: relative to the norm.
    """
    for case, name in GOLDENS.items():
        if bench.small and case != "bpi_joint_ucla":
            continue
        spec = json.loads((PROJECT / f"tests/goldens/{case}.json").read_text())
        meta = spec["meta"]
        skeleton = SKELETONS[meta["skeleton"]]
        state = {key: torch.from_numpy(np.asarray(value)) for key, value in fixed_state(spec["state_dict"]).items()}
        shape = (2, 3, meta["window"], skeleton.num_joints, meta["persons"])
        x = torch.from_numpy(fixed_input(shape, meta["input_seed"])).to(bench.device)
        expected = dict(np.load(PROJECT / f"tests/goldens/{case}.npz"))
        model = build_model(name, skeleton, meta["num_classes"], num_persons=meta["persons"])
        load_reference_weights(model, state)
        model = model.to(bench.device).eval()
        found = {}
        for precision in bench.precisions():
            for form, network in (("", model), (" fused", model.fuse())):
                with torch.no_grad(), bench.precision(precision):
                    out = network(x)
                worst = 0.0
                for field, theirs in expected.items():
                    ours = getattr(out, field).float().cpu().numpy()
                    theirs = theirs.reshape(ours.shape)
                    if precision != "fp32":
                        worst = max(worst, float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)))
                    elif field != "logit_scale":
                        worst = max(worst, float(np.abs(ours - theirs).max() / np.abs(theirs[0] - theirs[1]).max()))
                found[precision + form] = worst
        right = max(found["fp32"], found["fp32 fused"]) <= GOLDEN_BOUND
        bench.add(f"golden {case}", f"{'right' if right else 'WRONG'}: {listed(found)}", right=right, **found)


def gradients(bench: Bench) -> None:
    """Gradients in every precision against float32 on the CPU."""
    cases = (("bpi", UCLA), ("bpi", NTU), ("gap", UCLA), ("ctrgcn", NTU))
    for name, skeleton in cases[: 1 if bench.small else None]:
        found = {}

        def flat(
            device: str, precision: str, name: str = name, skeleton: Skeleton = skeleton, triton: bool = False
        ) -> torch.Tensor:
            model = bench.network(name, skeleton, 16).to(device)
            if triton:
                model.backbone.use_triton()
            x, labels, texts = bench.batch(skeleton, len(model.parts), 4, device)
            with product_precision(precision):
                with autocast(precision, torch.device(device))[0]:
                    out = model(x)
                skeleton_text_loss(out, None if name == "ctrgcn" else texts, labels).total.backward()
            return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

        expected = flat("cpu", "fp32")
        for precision in bench.precisions():
            found[precision] = relative(flat(bench.device, precision), expected)
        right = found["fp32"] < GRADIENT_BOUND
        verdict = "right" if right else "WRONG"
        bench.add(f"gradients {name}, {skeleton.name}", f"{verdict}: {listed(found)}", right=right, **found)
        if bench.on_gpu:
            found = {p: relative(flat(bench.device, p, triton=True), expected) for p in ("fp32", "bf16")}
            verdict = "right" if found["fp32"] < GRADIENT_BOUND else "WRONG"
            bench.add(f"gradients {name}, {skeleton.name}, triton", f"{verdict}: {listed(found)}", **found)


def feeder(bench: Bench) -> None:
    """Batches on the device against those on the host, bit for bit; milliseconds of a batch."""
    store = bench.store()
    every = np.arange(len(store))[: 32 if bench.small else None]
    wrong = 0
    for train in (True, False):
        for modality in MODALITIES:
            host = Feeder(store, every, modality, train=train)
            there = Feeder(store, every, modality, train=train, device=bench.device)
            for part in np.array_split(np.arange(len(every)), -(-len(every) // 256)):
                one, other = host.batch(part)[0], there.batch(part)[0].cpu()
                wrong += int((one != other).flatten(1).any(1).sum())
    order = np.random.default_rng(0).permutation(len(every))[:64]
    elapsed = bench.milliseconds(lambda: there.batch(order))
    verdict = "right" if not wrong else f"WRONG in {wrong} clips"
    said = f"{verdict}; {elapsed:.2f} ms for 64 clips"
    bench.add("feeder, 4 modalities, train and test", said, wrong=wrong, ms=elapsed)


def ceilings(bench: Bench) -> None:
    """What the device can do: products, copies, launches, waits."""
    size = 256 if bench.small else 8192
    for dtype in (torch.bfloat16, torch.float32):
        a, b = torch.randn(2, size, size, device=bench.device).to(dtype)
        with full_float32():
            elapsed = bench.milliseconds(lambda a=a, b=b: a @ b)
        rate = 2 * size**3 / elapsed / 1e9
        bench.add(f"matrix product {size}, {str(dtype)[6:]}", f"{rate:.1f} TFLOP/s", tflops=rate)
    source = torch.randn(1 << (20 if bench.small else 29), device=bench.device)
    target = torch.empty_like(source)
    rate = 2 * source.nbytes / bench.milliseconds(lambda: target.copy_(source)) / 1e9
    bench.add("copy on the device, read and written", f"{rate:.2f} TB/s", tbs=rate)
    one = torch.zeros(1, device=bench.device)
    elapsed = bench.milliseconds(lambda: [one.add_(1) for _ in range(1000)])
    bench.add("a launch", f"{elapsed:.2f} us", us=elapsed)
    elapsed = 10 * bench.milliseconds(lambda: [one.item() for _ in range(100)])
    bench.add("a wait of the host", f"{elapsed:.1f} us", us=elapsed)


def add_step(bench: Bench, name: str, clips: int, work: Callable[[], object]) -> None:
    """A row with speed, GPU time, kernels, waits and memory of a training step."""
    start = time.monotonic()
    work()
    bench.wait()
    first = time.monotonic() - start
    elapsed = bench.milliseconds(work)
    count, busy = bench.kernels(work)
    waits = bench.waits(work)
    memory = bench.peak_gb(work)
    said = f"{1000 * clips / elapsed:7.0f} clips/s, {elapsed:6.2f} ms, GPU busy {busy:6.2f} ms, {count} kernels, "
    said += f"{waits.total()} waits, {memory:.1f} GB, first {first:.0f} s"
    bench.add(name, said, clips=1000 * clips / elapsed, ms=elapsed, busy_ms=busy, kernels=count, waits=dict(waits),
              gb=memory, first_s=first)  # fmt: skip


def whole_steps(bench: Bench) -> None:
    """Feeder, network, shipped texts, loss, optimizer; where the host waits."""
    modes = ("none", "default", "graph") if bench.on_gpu else ("none",)
    for clips in (4,) if bench.small else (16, 32, 64):
        for mode in modes if clips in (4, 64) else modes[:1]:
            trainer = Trainer(bench.config(f"step_{clips}_{mode}", batch_size=clips, compile=mode))
            trainer.run.model.train()
            order = np.random.default_rng(0).permutation(len(trainer.feeder))
            last = len(order) - clips

            def step(trainer=trainer, order=order, clips=clips, last=last) -> None:
                start = trainer.progress.batch * clips % last
                trainer.feeder.expect(order[(start + clips) % last :][:clips])
                trainer._step(order[start : start + clips])
                trainer.progress.batch = (trainer.progress.batch + 1) % max(trainer.batches - 1, 1)

            try:
                add_step(bench, f"whole step, batch {clips}, {trainer.precision}, compile {mode}", clips, step)
            finally:
                trainer.close()


def steps(bench: Bench) -> None:
    """Forward and backward pass of BPI: ours, in the published order of operations, compiled, as CUDA graphs."""
    sizes = ((UCLA, 2),) if bench.small else ((UCLA, 16), (UCLA, 64), (NTU, 64), (NTU, 200))
    for skeleton, clips in sizes:
        precisions = ("bf16", "tf32", "fp32") if bench.on_gpu and clips == 64 else ("bf16",)
        for precision in precisions:
            others = ("default", "graph", "triton") if bench.on_gpu and precision == "bf16" and clips == 64 else ()
            for variant in ("ours", "plain", *others):
                if bench.seconds_left() < LEAST_SECONDS:
                    bench.add(f"step {skeleton.name} {clips} {precision} {variant}", "skipped: no time left")
                    return
                model = bench.network("bpi", skeleton)
                parts = len(model.parts)
                network = PlainNetwork(model) if variant == "plain" else model
                network = network.to(bench.device).train()
                if variant == "triton":
                    model.backbone.use_triton()
                network = compile_network(network, variant) if variant in ("default", "graph") else network
                x, labels, texts = bench.batch(skeleton, parts, clips, bench.device)

                def step(network=network, x=x, labels=labels, texts=texts, precision=precision) -> None:
                    network.zero_grad(set_to_none=True)
                    with product_precision(precision):
                        with autocast(precision, torch.device(bench.device))[0]:
                            out = network(x)
                        skeleton_text_loss(out, texts, labels).total.backward()

                name = f"step {skeleton.name} {clips} {precision} {variant}"
                try:
                    add_step(bench, name, clips, step)
                except Exception as error:
                    bench.add(name, f"FAILED: {first_line(error)}")
                torch._dynamo.reset()
                if bench.on_gpu:
                    torch.cuda.empty_cache()


def inference(bench: Bench) -> None:
    """The test clips' logits: time in float32, and how far other precisions are off."""
    trainer = Trainer(bench.config("inference", batch_size=8 if bench.small else 64))
    tested = trainer.run.feeder("test")
    try:
        exact = predict(trainer.run.model, tested, 64)
        elapsed = bench.milliseconds(lambda: predict(trainer.run.model, tested, 64))
        bench.add("predict, fp32", f"{1000 * len(tested) / elapsed:.0f} clips/s", ms=elapsed, clips=len(tested))
        fused = trainer.run.model.fuse()
        x = tested.batch(np.arange(min(2 if bench.small else 64, len(tested))))[0]
        for precision in bench.precisions():
            with torch.no_grad(), bench.precision(precision):
                elapsed = bench.milliseconds(lambda: fused(x))
                logits = fused(x).logits.float().cpu().numpy()
            apart = float(np.abs(logits - exact[: len(x)]).max() / max(np.ptp(exact, axis=0).max(), 1e-9))
            said = f"{1000 * len(x) / elapsed:.0f} clips/s, logits off by {apart:.0e} of the difference between clips"
            bench.add(f"inference, batch {len(x)}, {precision}", said, ms=elapsed, apart=apart)
    finally:
        trainer.close()


def text(bench: Bench) -> None:
    """The published text tower trained along, with random weights."""
    if importlib.util.find_spec("open_clip") is None:
        bench.add("text tower", "skipped: open_clip is not installed")
        return
    if bench.small:
        bench.add("text tower", "skipped: too large for a rehearsal")
        return
    import open_clip

    from bpilib.text import build_text
    from bpilib.text.prompts import load_prompts

    clip = open_clip.create_model("ViT-B-32", None), open_clip.get_tokenizer("ViT-B-32")
    for dataset, clips in (("ucla", 64), ("ntu120", 64), ("ntu120", 200)):
        prompts = load_prompts(PROJECT / f"params/prompts/{dataset}.yaml")
        encoder = build_text("clip", "bpi", prompts, clip_model=clip).to(bench.device)
        prepared = encoder.prepare(np.arange(clips) % len(prompts.classes), np.linspace(0, 0.99, clips))
        sent = [tensor.to(bench.device) for tensor in prepared]

        def step(encoder=encoder, sent=sent) -> None:
            encoder.zero_grad(set_to_none=True)
            with bench.precision("bf16"):
                out = encoder.encode(*sent)
            out.sum().backward()

        add_step(bench, f"text tower {dataset} {clips}, bf16", clips, step)


def resume(bench: Bench) -> None:
    """Whether the same run twice, and stopped and gone on with, gives the same bits; without and with deterministic."""
    for steady in (False, True):
        configs = {name: bench.config(f"{name}_{steady}", batch_size=16 if bench.small else 64, repeats=1, epochs=2,
                                      deterministic=steady) for name in ("whole", "again", "cut")}  # fmt: skip
        fit(configs["whole"])
        fit(configs["again"])
        asked = iter([False, True])
        trainer = Trainer(configs["cut"])
        with contextlib.suppress(KeyboardInterrupt), contextlib.closing(trainer):
            trainer.run_epochs(lambda asked=asked: next(asked), None)
        fit(configs["cut"])
        weights = {name: checkpoint.load(c.run_directory / "last.pt")["model"] for name, c in configs.items()}
        whole = weights.pop("whole")
        same = {name: all(torch.equal(its[key], whole[key]) for key in whole) for name, its in weights.items()}
        torch.use_deterministic_algorithms(False)
        said = f"twice the same bits: {same['again']}, stopped and gone on with: {same['cut']}"
        bench.add(f"resume, deterministic {steady}", said, **same)


def one_of_two(rank: int, size: int, folder: str, config: Config) -> None:
    """A process of `processes`: the gradients of its share of a batch."""
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{folder}/group{size}", rank=rank, world_size=size)
    trainer = Trainer(config)
    trainer.run.model.eval()
    trainer.loss(np.arange(7))[0].total.backward()
    named = trainer.run.model.named_parameters()
    torch.save({name: p.grad.cpu() for name, p in named if p.grad is not None}, f"{folder}/{size}.{rank}.pt")
    trainer.close()
    dist.destroy_process_group()


def processes(bench: Bench) -> None:
    """Two processes on one device against one (over gloo, since NCCL wants a GPU for each)."""
    folder = tempfile.mkdtemp(dir=bench.scratch)
    for size in (1, 2):
        config = bench.config(f"pair{size}", batch_size=8, precision="fp32")
        torch.multiprocessing.spawn(one_of_two, (size, folder, config), nprocs=size)
    one, first, second = (torch.load(f"{folder}/{name}.pt") for name in ("1.0", "2.0", "2.1"))
    alone, ours, theirs = (torch.cat([found[name].flatten() for name in one]) for found in (one, first, second))
    found = {"against one": relative(ours, alone), "between them": relative(ours, theirs)}
    right = max(found.values()) < GOLDEN_BOUND
    bench.add("gradients of two processes", f"{'right' if right else 'WRONG'}: {listed(found)}", right=right, **found)


def streams(bench: Bench) -> None:
    """NW-UCLA's four streams, each in a process, at once on the device; as many of 65 epochs as there is time for."""
    store = bench.store()
    row = bench.rows.get("whole step, batch 64, bf16, compile none", {})
    clips = len(store.split(bench.config("any").benchmark, "train"))
    an_epoch = 5 * clips / 64 * row.get("ms", 20) / 1000 * 3 + 1  # four at once
    epochs = 1 if bench.small else max(2, min(65, int((bench.seconds_left() - 40) / an_epoch)))
    modalities = MODALITIES[: 1 if bench.small else None]
    started = {}
    for modality in modalities:
        command = [sys.executable, __file__, "--device", bench.device, "--stream", str(bench.scratch), str(epochs)]
        command += [modality, *["--small"] * bench.small]
        log = (bench.scratch / f"{modality}.log").open("w")
        started[modality] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    begun = time.monotonic()
    scores = {}
    for modality, process in started.items():
        try:
            process.wait(max(5.0, bench.seconds_left()) if not bench.small else 300)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        place = bench.config("stream", modality=modality).run_directory / "scores.npz"
        name = f"{epochs} epochs of {modality}"
        if place.exists():
            scores[modality] = Scores.load(place)
            bench.add(name, f"top-1 {scores[modality].top(1):.2f} %", top1=scores[modality].top(1))
        else:
            lines = (bench.scratch / f"{modality}.log").read_text().strip().splitlines()
            bench.add(name, f"not finished: {lines[-1][-120:] if lines else 'nothing said'}")
    if len(scores) > 1:
        whole = ensemble(scores, "bpi").scores
        low, high = whole.interval()
        said = f"top-1 {whole.top(1):.2f} % ({low:.1f} to {high:.1f}), {time.monotonic() - begun:.0f} s"
        bench.add(f"ensemble of {len(scores)} streams", said, top1=whole.top(1))


def train_stream(bench: Bench, epochs: int, modality: str) -> None:
    """What each process of `streams` does."""
    marks = [round(0.8 * epochs), round(0.9 * epochs)]
    size = 16 if bench.small else 64
    fit(bench.config("stream", modality=modality, batch_size=size, epochs=epochs, repeats=1 if bench.small else 5,
                     warmup=min(5, epochs - 1), schedule="step", steps=marks, eval_every=5))  # fmt: skip


STAGES: dict[str, Callable[[Bench], None]] = {
    stage.__name__: stage
    for stage in (machine, goldens, gradients, feeder, ceilings, whole_steps, inference, resume, processes, text, steps,
                  streams)
}  # fmt: skip


def first_line(error: Exception) -> str:
    """Kind and first line of an error."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:120]}"


def run_stages(bench: Bench, names: Iterable[str]) -> None:
    """Each stage in its own try; then the table."""
    for name in names:
        if bench.seconds_left() < LEAST_SECONDS and not bench.small:
            bench.add(name, "skipped: no time left")
            continue
        try:
            STAGES[name](bench)
        except Exception as error:
            traceback.print_exc()
            bench.add(name, f"FAILED: {first_line(error)}")
    print("\n".join(["", *(f"{name:52} {row['found']}" for name, row in bench.rows.items())]))


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--only", nargs="*", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--out", type=Path, default=PROJECT / "outputs" / "bench" / "gpu.json")
    parser.add_argument("--stream", nargs=3, metavar=("FOLDER", "EPOCHS", "MODALITY"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stream:
        folder, epochs, modality = given.stream
        bench = Bench(given.device, given.minutes, given.small, given.out, Path(folder))
        train_stream(bench, int(epochs), modality)
        return
    if given.device != "cpu" and not torch.cuda.is_available():
        sys.exit("PyTorch sees no GPU here: use --device cpu --small for a rehearsal")
    with scratch_folder("bpi_gpu_") as scratch:
        run_stages(Bench(given.device, given.minutes, given.small, given.out, scratch), given.only)


if __name__ == "__main__":
    main()
