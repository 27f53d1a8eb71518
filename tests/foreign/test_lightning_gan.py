"""Lightning with manual optimisation, a moving average and checkpoints."""

import pytest
import torch
from foreign import small_digits as digits
from torch.testing import assert_close

from torch_mmd_losses import UsageWarning

L = pytest.importorskip("lightning")
callbacks = pytest.importorskip("lightning.pytorch.callbacks")

pytestmark = [
    pytest.mark.paper,
    # Lightning flattens batches by a class that PyTorch has replaced.
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning"),
]

TRAINED = 0.1
"""Measured with seed 0: 0.032; untrained about 1."""


@pytest.fixture
def fit(tmp_path):
    def fit(module, *, epochs, callbacks=(), checkpoint=None):
        images, _ = digits.halves()
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images), batch_size=64, drop_last=True)
        trainer = L.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=epochs,
            callbacks=list(callbacks),
            default_root_dir=tmp_path,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, loader, ckpt_path=checkpoint)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return tmp_path / f"{epochs}.ckpt"

    return fit


def test_the_criterion_of_the_template_is_refused(fit):
    from foreign.lightning_gan import NaiveGAN

    with pytest.raises(TypeError, match=r"Write loss\.discriminator\(real=\.\.\., fake=\.\.\.\).*there are no labels"):
        fit(NaiveGAN(), epochs=1)


def test_a_moving_average_before_the_first_forward_is_warned_of(fit):
    from foreign.lightning_gan import GAN

    average = callbacks.EMAWeightAveraging(decay=0.9)
    with (
        pytest.warns(UsageWarning, match=r"or use conv_spectral_norm\(\.\.\., example_input=\.\.\.\)"),
        pytest.raises(RuntimeError, match="must match the size"),
    ):
        fit(GAN(with_example=False), epochs=1, callbacks=[average])


def test_it_trains_with_a_moving_average(fit):
    from foreign.lightning_gan import GAN, z_dim

    gan = GAN()
    fit(gan, epochs=10, callbacks=[callbacks.EMAWeightAveraging(decay=0.9)])
    assert digits.judge(gan.eval(), z_dim) < TRAINED


@pytest.mark.parametrize("with_example", [False, True])
def test_a_resumed_run_is_the_run(fit, with_example):
    from foreign.lightning_gan import GAN

    images, _ = digits.halves()
    start = GAN(with_example)
    state = {name: value.clone() for name, value in start.state_dict().items()}
    half = fit(start, epochs=1)
    resumed = GAN(with_example)
    fit(resumed, epochs=2, checkpoint=half)
    whole = GAN(with_example)
    whole.load_state_dict(state)
    checkpoint = fit(whole, epochs=2)
    assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)
    loaded = GAN.load_from_checkpoint(checkpoint).eval()
    assert_close(loaded.D(images[:8]), whole.eval().D(images[:8]), rtol=0, atol=0)
