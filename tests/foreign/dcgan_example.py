"""A program in the shape of PyTorch's DCGAN example: `weights_init`, and a `forward` that flattens its output.

`NaiveDiscriminator` and `criterion_step` are what remains of the example if only the loss and the spectral norm are
replaced. `Discriminator` and `one_backward` are the right forms. `original` and `BinaryCrossEntropy` are the example
itself.

`python tests/foreign/dcgan_example.py` trains the example, the right form and the naive forms that run without an
error, three seeds each, and prints how far the generated digits are from real ones. For comparison, it first prints how
far other images are.
"""

import torch
from torch import nn
from torch.utils.data import DataLoader

from torch_mmd_losses import MMDLoss, conv_spectral_norm

nz = 16


def weights_init(m):
    name = type(m).__name__
    if "Conv" in name:
        nn.init.normal_(m.weight, 0.0, 0.05)
    elif "BatchNorm" in name:
        nn.init.normal_(m.weight, 1.0, 0.05)
        nn.init.zeros_(m.bias)


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(nz, 32, 4, 1, 0, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(True),
            nn.ConvTranspose2d(32, 1, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, z):
        return self.main(z)


class NaiveDiscriminator(nn.Module):
    def __init__(self, outputs=16):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(1, 16, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(16, 32, 4, 2, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(32, outputs, 2, 1, 0, bias=False),
        )
        conv_spectral_norm(self.main, scale=1 / 0.55)

    def forward(self, x):
        return self.main(x).view(-1, 1).squeeze(1)


class Discriminator(nn.Module):
    def __init__(self, outputs=16):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(1, 16, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(16, 32, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(32, outputs, 2, 1, 0, bias=False),
        )

    def forward(self, x):
        return self.main(x).flatten(1)


class NormalisedDiscriminator(Discriminator):
    def __init__(self, outputs=16):
        super().__init__(outputs)
        self.main.insert(3, nn.BatchNorm2d(32))


class FlattenedDiscriminator(Discriminator):
    def forward(self, x):
        return super().forward(x).view(-1)


class FlattenedNormalisedDiscriminator(NormalisedDiscriminator):
    def forward(self, x):
        return super().forward(x).view(-1)


class SigmoidDiscriminator(Discriminator):
    def forward(self, x):
        return super().forward(x).sigmoid()


class BinaryCrossEntropy:
    """The losses of the example, with the interface of `MMDLoss`."""

    def discriminator(self, real, fake):
        targets = torch.ones_like(real), torch.zeros_like(fake)
        return nn.functional.binary_cross_entropy(real, targets[0]) + nn.functional.binary_cross_entropy(
            fake, targets[1]
        )

    def generator(self, real, fake):
        return nn.functional.binary_cross_entropy(fake, torch.ones_like(fake))


class OriginalDiscriminator(NormalisedDiscriminator):
    def forward(self, x):
        return super().forward(x).view(-1).sigmoid()


def original():
    return OriginalDiscriminator(outputs=1).apply(weights_init)


def make(kind=Discriminator, outputs=16):
    netD = kind(outputs)
    netD.apply(weights_init)
    return conv_spectral_norm(netD, scale=1 / 0.55)


def criterion_step(criterion, netD, real, fake):
    output = netD(real)
    errD_real = criterion(output, torch.ones(len(output)))
    errD_real.backward()
    output = netD(fake.detach())
    errD_fake = criterion(output, torch.zeros(len(output)))
    errD_fake.backward()


def two_backwards(criterion, netD, real, fake):
    with torch.no_grad():
        fake_output = netD(fake)
    output = netD(real)
    criterion.discriminator(real=output, fake=fake_output).backward()
    real_output = output.detach()
    output = netD(fake.detach())
    criterion.discriminator(real=real_output, fake=output).backward()


def one_backward(criterion, netD, real, fake):
    errD = criterion.discriminator(real=netD(real), fake=netD(fake.detach()))
    errD.backward()


def swapped(criterion, netD, real, fake):
    criterion.discriminator(netD(fake.detach()), netD(real)).backward()


def labels_as_fake_scores(criterion, netD, real, fake):
    output = netD(real)
    criterion.discriminator(real=output, fake=torch.zeros_like(output)).backward()


def called_as_a_criterion(criterion, netD, real, fake):
    criterion(real=netD(real), fake=netD(fake.detach())).backward()


def train(images, netD, update_d=one_backward, criterion=None, *, epochs, drop_last=True):
    netG = Generator()
    netG.apply(weights_init)
    criterion = criterion or MMDLoss()
    dataloader = DataLoader(images, batch_size=64, shuffle=True, drop_last=drop_last)
    optimizerD = torch.optim.Adam(netD.parameters(), lr=2e-3, betas=(0.5, 0.999))
    optimizerG = torch.optim.Adam(netG.parameters(), lr=2e-3, betas=(0.5, 0.999))
    for _ in range(epochs):
        for real in dataloader:
            fake = netG(torch.randn(real.size(0), nz, 1, 1))
            netD.zero_grad()
            update_d(criterion, netD, real, fake)
            optimizerD.step()

            netG.zero_grad()
            errG = criterion.generator(real=netD(real).detach(), fake=netD(fake))
            errG.backward()
            optimizerG.step()
    return netG


FORMS = {
    "the unchanged example": (original, one_backward, BinaryCrossEntropy()),
    "the right form": (make, one_backward),
    "a sigmoid at the end": (lambda: make(SigmoidDiscriminator), one_backward),
    "one score": (lambda: make(outputs=1), one_backward),
    "BatchNorm": (lambda: make(NormalisedDiscriminator), one_backward),
    "scores swapped": (make, swapped),
    "the loss called as a criterion": (make, called_as_a_criterion),
    "zeros as fake scores": (make, labels_as_fake_scores),
    "scores flattened": (lambda: make(FlattenedDiscriminator), one_backward),
    "scores flattened, and BatchNorm": (lambda: make(FlattenedNormalisedDiscriminator), one_backward),
}


if __name__ == "__main__":
    import warnings

    import small_digits as digits

    warnings.simplefilter("ignore")
    images, _ = digits.halves()
    noise = torch.rand(1000, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    others = {
        "other real digits": images,
        "the mean digit": images.mean(0, keepdim=True).expand(1000, -1, -1, -1),
        "noise": noise,
    }
    for name, samples in others.items():
        print(name, f"{digits.pooled_pixel_mmd2(samples):.3f}")
    for name, (make_discriminator, *how) in FORMS.items():
        values = []
        for seed in range(3):
            torch.manual_seed(seed)
            values.append(digits.judge(train(images, make_discriminator(), *how, epochs=10), nz, 1, 1))
        print(name, *(f"{value:.3f}" for value in values))
