"""References in state dicts and on other devices."""

import io

import pytest
import torch
from cases import scores
from reference_kinds import KINDS, taken_by
from torch import nn
from torch.testing import assert_close

from torch_mmd_losses import MMDReference, RationalQuadraticMix, RBFKernel

pytestmark = pytest.mark.filterwarnings("ignore:MMDReference. expected landmarks that represent")


def made(kind, count, kernel=None, **options):
    """Return a reference of a size."""
    sizes = taken_by(kind, landmarks=count // 2, frequencies=count)
    return MMDReference(scores(count, 2, count), kernel or RBFKernel(1.5), kind=kind, **sizes, **options)


def results(reference, fake):
    """Return what depends on each part of the state."""
    return [reference.mmd2(fake, estimator="unbiased"), *reference.sums(fake), reference.self_term]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_self_term", [False, True])
@pytest.mark.parametrize("assign", [False, True])
def test_a_reference_of_another_size_loads_the_state(kind, with_self_term, assign):
    weights, fake = scores(12, 1, 9)[:, 0].abs(), scores(5, 2, 2)
    saved = made(kind, 12, weights=weights)
    if with_self_term:
        assert saved.self_term > 0
    file = io.BytesIO()
    torch.save(saved.state_dict(), file)
    file.seek(0)
    other = made(kind, 20, RBFKernel(3.0))
    other.load_state_dict(torch.load(file, weights_only=True), assign=assign)
    assert_close(results(other, fake), results(saved, fake), rtol=0, atol=1e-12)
    assert other.kernel.sigma == 1.5
    more = scores(4, 2, 3)
    other.update(more)
    saved.update(more)
    assert_close(results(other, fake), results(saved, fake), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("assign", [False, True])
def test_sums_that_were_rounded_to_half_precision_are_refused(kind, assign):
    fake, reference, saved = scores(5, 2, 2), made(kind, 12), made(kind, 14).state_dict()
    expected = results(reference, fake)
    state = {
        name: tensor if name.endswith("_extra_state") or not tensor.is_floating_point() else tensor.half()
        for name, tensor in saved.items()
    }
    with pytest.raises(
        ValueError, match=r"^state of MMDReference: expected sums in torch.float64, got 'weight' in tor"
    ):
        reference.load_state_dict(state, assign=assign)
    assert_close(results(reference, fake), expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_reference_in_another_module_is_as_before_if_its_state_is_refused(kind):
    module = nn.ModuleDict({"reference": made(kind, 12)})
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    state["reference.form.like"], state["reference.form.weight"] = torch.empty(0, 3).half(), torch.ones(()).half()
    before = dict(module.named_buffers())
    with pytest.raises(ValueError, match=r"^state of MMDReference: expected sums in torch.float64, got 'weight'"):
        module.load_state_dict(state)  # PyTorch's modules keep the part before the error
    assert all(buffer is before[name] for name, buffer in module.named_buffers())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("assign", [False, True])
def test_rows_take_the_dtype_of_a_state_and_sums_stay_in_float64(kind, assign):
    saved, other = made(kind, 12, weights=scores(12, 1, 9)[:, 0].abs()), made(kind, 20)
    narrow = {
        torch.float16: ("like", "rows", "landmarks", "chosen"),
        torch.float32: ("weight", "mu", "waves", "weights"),
    }
    state = saved.state_dict()
    for dtype, names in narrow.items():
        for name in names:
            if f"form.{name}" in state:
                state[f"form.{name}"] = state[f"form.{name}"].to(dtype)
    other.load_state_dict(state, assign=assign)
    for name, buffer in other.form.named_buffers():
        if buffer.is_floating_point():
            assert buffer.dtype == (torch.float16 if name in narrow[torch.float16] else torch.float64)
    fake = scores(5, 2, 2).float()
    assert_close(other.mmd2(fake), saved.mmd2(fake.double()).float(), rtol=1e-2, atol=1e-3)  # rows in half precision


@pytest.mark.parametrize("kind", KINDS)
def test_as_a_part_of_another_module(kind):
    fake = scores(5, 2, 2)
    saved, other = (nn.ModuleDict({"loss": made(kind, count)}) for count in (12, 20))
    other.load_state_dict(saved.state_dict())
    assert_close(results(other["loss"], fake), results(saved["loss"], fake), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_that_does_not_fit_changes_nothing(kind):
    fake, reference = scores(5, 2, 2), made(kind, 12)
    expected = results(reference, fake)
    wrong = KINDS[KINDS.index(kind) - 1]
    with pytest.raises(ValueError, match=f"^state of MMDReference: expected kind='{kind}', got kind='{wrong}'"):
        reference.load_state_dict(made(wrong, 12).state_dict())
    with pytest.raises(ValueError, match="^state of "):
        reference.load_state_dict(made(kind, 14, RationalQuadraticMix()).state_dict())
    for name in ("form.diagonal", "_extra_state"):
        left = {key: value for key, value in made(kind, 14).state_dict().items() if key != name}
        with pytest.raises(RuntimeError, match=f"Missing key.*{name}"):
            reference.load_state_dict(left)
    assert_close(results(reference, fake), expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("convert", [lambda x: x.half(), lambda x: x.to(torch.bfloat16), lambda x: x.float()])
def test_conversions_keep_what_was_given(kind, convert):
    real, fake = scores(12, 2, 12).to(torch.float32), scores(5, 2, 2)
    reference = MMDReference(real, RBFKernel(1.5), kind=kind, **taken_by(kind, landmarks=6, frequencies=12))
    expected = results(reference, fake)
    dtypes = {name: buffer.dtype for name, buffer in reference.named_buffers()}
    model = convert(nn.ModuleDict({"network": nn.Linear(2, 2), "loss": reference}))
    assert {name: buffer.dtype for name, buffer in reference.named_buffers()} == dtypes
    assert model["network"].weight.dtype != torch.float64
    assert_close(results(model["loss"], fake), expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_everything_follows_to_another_device(kind):
    reference = made(kind, 12).to("meta")
    assert {buffer.device.type for name, buffer in reference.named_buffers() if "keys" not in name} == {"meta"}
    assert len(dict(reference.named_buffers())) > 5


def test_memory_is_shared_between_processes():
    reference = made("nystrom", 12).share_memory()
    assert all(buffer.is_shared() for buffer in reference.buffers())


def test_a_reference_without_values_is_filled_by_a_state():
    saved, fake = made("exact", 12), scores(5, 2, 2)
    empty = made("exact", 20).to("meta").to_empty(device="cpu")
    empty.load_state_dict(saved.state_dict())
    assert_close(results(empty, fake), results(saved, fake), rtol=0, atol=1e-12)


def test_tensors_can_be_changed_without_the_kernel():
    reference = made("exact", 12)
    assert reference.form._apply(lambda x: x.half(), recurse=False) is reference.form
    assert reference.form.rows.dtype == torch.float64


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_cuda_equals_cpu_without_synchronisation(kind):
    reference, fake = made(kind, 12), scores(5, 2, 2)
    expected = results(reference, fake)
    moved, fake = reference.cuda(), fake.cuda()
    results(moved, fake)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = results(moved, fake)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_close([x.cpu() for x in found], expected)


def everything(reference, fake):
    """Return the sum of all that a reference computes from samples."""
    values = [*results(reference, fake), reference.attraction(fake), reference.witness(fake, fake.detach())]
    if reference.kind != "fourier":
        values.append(reference.drmmd2(fake, lambda_=0.1))
    return torch.stack([value.sum() for value in values]).sum()


def seeded(kind):
    return made(kind, 12, generator=torch.Generator().manual_seed(0))


def loaded(reference):
    other = made(reference.kind, 20)
    other.load_state_dict(reference.state_dict())
    return other


def evaluated(reference):
    everything(reference, scores(5, 2, 2))
    return reference


def updated(reference):
    reference.update(scores(3, 2, 8))
    return reference


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", ["made", loaded, evaluated, updated])
def test_inference_mode_leaves_a_reference_that_can_be_trained_with(kind, step):
    def gradients(reference):
        fake, found = scores(5, 2, 2).requires_grad_(), []
        for seed in (3, 4):
            found += torch.autograd.grad(everything(reference, fake), fake)
            reference.update(scores(4, 2, seed))
        return found

    def stepped(reference):
        return seeded(kind) if step == "made" else step(reference)

    expected = gradients(stepped(seeded(kind)))
    outside = seeded(kind)
    with torch.inference_mode():
        inside = stepped(outside)
    assert_close(gradients(inside), expected)
