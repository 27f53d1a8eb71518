"""Scripts in place of those that take long, for tests of what starts them."""

TRAIN = """
# Behaves like a training script, and writes each iteration that it does into `trace`.
import json, os, signal, sys, time

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
if "deaf" in options:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    # Like a training script, which the second signal ends without saving.
    signal.signal(signal.SIGTERM, lambda number, frame: (stopped.append(number), signal.signal(number, signal.SIG_DFL)))
os.makedirs(out + "/checkpoints", exist_ok=True)
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
    time.sleep(float(options.get("pause", 0)))
    if options["loss"] == "hinge" and options["lr-generator"] == "0.001" and iteration == 2:
        print("Stopped at iteration 1,002, where loss_generator is nan. Try", file=sys.stderr)
        sys.exit(1)
    if options["loss"] == "minimax":
        print(*range(100), sep="\\n")
        raise RuntimeError("out of luck")
    with open(out + "/log.jsonl", "a") as file:
        file.write(json.dumps({"iteration": iteration}) + "\\n")
    open(out + f"/checkpoints/iteration-{iteration:08d}.pt", "w").close()
    if stopped:
        sys.exit(128 + stopped[0])
os.makedirs(out + "/samples", exist_ok=True)
open(out + f"/samples/iteration-{last:08d}.png", "w").close()
"""
