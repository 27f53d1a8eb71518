"""A Lightning module with manual optimisation, as in Lightning's GAN examples."""

import lightning as L
import torch
from torch import nn

from torch_mmd_losses import MMDLoss, conv_spectral_norm

z_dim = 16


class GAN(L.LightningModule):
    def __init__(self, with_example=True):
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.G = nn.Sequential(
            nn.Linear(z_dim, 128), nn.ReLU(), nn.Linear(128, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8))
        )
        self.D = conv_spectral_norm(
            nn.Sequential(nn.Conv2d(1, 16, 4, 2, 1), nn.LeakyReLU(0.1), nn.Flatten(), nn.Linear(16 * 4 * 4, 16)),
            scale=1 / 0.55,
            example_input=torch.zeros(1, 1, 8, 8) if with_example else None,
        )
        self.loss = MMDLoss()

    def forward(self, z):
        return self.G(z)

    def training_step(self, batch):
        (real,) = batch
        opt_d, opt_g = self.optimizers()
        # The noise depends on the step only, so that a resumed run repeats it.
        z = torch.randn(len(real), z_dim, generator=torch.Generator().manual_seed(self.global_step))
        fake = self(z)

        self.toggle_optimizer(opt_d)
        loss_d = self.discriminator_loss(real, fake.detach())
        opt_d.zero_grad()
        self.manual_backward(loss_d)
        opt_d.step()
        self.untoggle_optimizer(opt_d)

        self.toggle_optimizer(opt_g)
        loss_g = self.loss.generator(real=self.D(real), fake=self.D(self(z)))
        opt_g.zero_grad()
        self.manual_backward(loss_g)
        opt_g.step()
        self.untoggle_optimizer(opt_g)
        self.log_dict({"loss_d": loss_d, "loss_g": loss_g})

    def discriminator_loss(self, real, fake):
        return self.loss.discriminator(real=self.D(real), fake=self.D(fake))

    def configure_optimizers(self):
        return [torch.optim.Adam(network.parameters(), lr=2e-3, betas=(0.5, 0.999)) for network in (self.D, self.G)]


class NaiveGAN(GAN):
    """The criterion is called as the template calls its `adversarial_loss(y_hat, y)`."""

    def discriminator_loss(self, real, fake):
        return self.loss(self.D(real), torch.ones(len(real))) + self.loss(self.D(fake), torch.zeros(len(fake)))
