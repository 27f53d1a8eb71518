"""Scripts in place of those that take long, for tests of what starts them."""

TRAIN = """
# Behaves like a training script, and writes each iteration that it does into `trace`.
import fcntl, json, os, signal, sys, time

options = dict(word[2:].partition("=")[::2] for word in sys.argv[1:])
if "refuse" in options:
    print("stub: error: refused", file=sys.stderr)
    sys.exit(2)
if "dry-run" in options:
    sys.exit()
if "changed" in options:
    sys.exit(2)
out, last = options["out"], int(options.get("iterations", 3))
stopped = []
# Like a training script, which the second signal ends without saving.
for each in (signal.SIGINT, signal.SIGTERM):
    signal.signal(each, lambda number, frame: (stopped.append(number), signal.signal(number, signal.SIG_DFL)))
os.makedirs(out + "/checkpoints", exist_ok=True)
lock = open(out + "/training.lock", "a")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print(out, "is in use by another training", file=sys.stderr)
    sys.exit(2)
with open(out + "/configuration.json", "w") as file:
    json.dump({"iterations": last}, file)
with open(out + "/environment", "w") as file:
    json.dump([options.get("device"), os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("OMP_NUM_THREADS")], file)
with open(out + "/pid", "w") as file:
    file.write(str(os.getpid()))
first = max([int(name[10:-3]) for name in os.listdir(out + "/checkpoints")], default=0) + 1
for iteration in range(first, last + 1):
    with open(out + "/trace", "a") as file:
        file.write(f"{iteration}\\n")
    slow = os.path.exists(os.path.join(os.path.dirname(__file__), "slow"))
    time.sleep(0.1 * slow)
    if options["loss"] == "hinge" and options["lr-generator"] == "0.001" and iteration == 2:
        print("Stopped at iteration 1,002, where loss_generator is nan. Try", file=sys.stderr)
        sys.exit(1)
    if options["loss"] == "minimax":
        print(*range(100), sep="\\n")
        raise RuntimeError("out of luck")
    with open(out + "/log.jsonl", "a") as file:
        file.write(json.dumps({"iteration": iteration}) + "\\n")
    time.sleep(3 if slow and stopped else 0)  # the last checkpoint takes longer than the sweep needs to react
    open(out + f"/checkpoints/iteration-{iteration:08d}.pt", "w").close()
    if stopped:
        sys.exit(128 + stopped[0])
os.makedirs(out + "/samples", exist_ok=True)
open(out + f"/samples/iteration-{last:08d}.png", "w").close()
"""

EVALUATE = """
# Behaves like evaluate.py --all: distances of the checkpoints that are there, the least where learning rates are equal.
import json, os, sys

run, overwrite, *rest = sys.argv[1:]
assert overwrite == "--overwrite"
if "--fail" in rest:
    sys.exit("no network")
settings = dict(word.split("=") for word in os.path.basename(run).split(","))
d, g, seed = (float(settings[name]) for name in ("lr-discriminator", "lr-generator", "seed"))
os.makedirs(run + "/evaluations", exist_ok=True)
for name in sorted(os.listdir(run + "/checkpoints")):
    fid = 20 + abs(d / g - 1) + seed
    origin = dict.fromkeys(("images", "extractor", "seed", "versions", "machine", "date", "command"), rest)
    origin["checkpoint"] = {"iteration": int(name[10:-3])}
    metrics = {"fid": fid, "kid_mean": fid / 1000, "kid_std": 0.1, "class_coverage": 1}
    with open(run + f"/evaluations/{name[:-3]}.json", "w") as file:
        json.dump({"metrics": metrics, "class_shares": {"measured": [1]}, "provenance": origin}, file)
with open(run + "/evaluated", "a") as file:
    file.write(" ".join(rest) + "\\n")
"""
