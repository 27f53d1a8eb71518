"""A program in the shape of PyTorch-GAN's ACGAN: a discriminator with a head for scores and one for classes.

The generator is updated first. `python tests/foreign/acgan.py` trains with several weights of the class loss, two seeds
each, and with the class head inside and outside of `conv_spectral_norm`. It prints MMD^2 between generated and held-out
digits and the accuracy of the class head on held-out digits.
"""

import torch
from torch import nn

from torch_mmd_losses import MMDLoss, conv_spectral_norm

latent_dim, n_classes = 16, 10


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.label_emb = nn.Embedding(n_classes, latent_dim)
        self.main = nn.Sequential(
            nn.ConvTranspose2d(latent_dim, 32, 4, 1, 0, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 1, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, noise, labels):
        return self.main((self.label_emb(labels) * noise)[..., None, None])


class Discriminator(nn.Module):
    def __init__(self, outputs=16):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(16, 32, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
        )
        self.adv_layer = nn.Linear(32 * 2 * 2, outputs)
        self.aux_layer = nn.Linear(32 * 2 * 2, n_classes)

    def forward(self, img):
        out = self.features(img)
        return self.adv_layer(out), self.aux_layer(out)


def wrap_all(discriminator):
    return conv_spectral_norm(discriminator, scale=1 / 0.55)


def wrap_scores(discriminator):
    conv_spectral_norm(discriminator.features, scale=1 / 0.55)
    conv_spectral_norm(discriminator.adv_layer, scale=1 / 0.55)
    return discriminator


class Trainer:
    """Both networks, their optimisers and the losses; `weight` is that of the class loss."""

    def __init__(self, weight, wrap=wrap_all):
        self.generator, self.discriminator, self.weight = Generator(), wrap(Discriminator()), weight
        self.adversarial_loss, self.auxiliary_loss = MMDLoss(), nn.CrossEntropyLoss()
        self.optimizer_G = torch.optim.Adam(self.generator.parameters(), lr=2e-3, betas=(0.5, 0.999))
        self.optimizer_D = torch.optim.Adam(self.discriminator.parameters(), lr=5e-4, betas=(0.5, 0.999))

    def step(self, real_imgs, labels):
        z = torch.randn(len(real_imgs), latent_dim)
        gen_labels = torch.randint(n_classes, (len(real_imgs),))
        gen_imgs = self.generator(z, gen_labels)

        self.optimizer_G.zero_grad()
        with torch.no_grad():
            real_scores, _ = self.discriminator(real_imgs)
        fake_scores, pred_label = self.discriminator(gen_imgs)
        g_loss = self.adversarial_loss.generator(real=real_scores, fake=fake_scores)
        g_loss = g_loss + self.weight * self.auxiliary_loss(pred_label, gen_labels)
        g_loss.backward()
        self.optimizer_G.step()

        self.optimizer_D.zero_grad()
        real_scores, real_aux = self.discriminator(real_imgs)
        fake_scores, _ = self.discriminator(gen_imgs.detach())
        d_loss = self.adversarial_loss.discriminator(real=real_scores, fake=fake_scores)
        d_loss = d_loss + self.weight * self.auxiliary_loss(real_aux, labels)
        d_loss.backward()
        self.optimizer_D.step()
        return g_loss, d_loss


def train(images, labels, weight, wrap=wrap_all, *, steps):
    trainer = Trainer(weight, wrap)
    for _ in range(steps):
        chosen = torch.randint(len(images), (64,))
        trainer.step(images[chosen], labels[chosen])
    return trainer


@torch.no_grad()
def accuracy(discriminator, images, labels):
    return float((discriminator(images)[1].argmax(1) == labels).float().mean())


if __name__ == "__main__":
    import small_digits as digits

    images, labels = digits.load()
    labels_of_1000 = torch.arange(1000) % n_classes
    for wrap in (wrap_all, wrap_scores):
        for weight in (0.1, 0.3, 1.0) if wrap is wrap_all else (0.3,):
            for seed in range(2):
                torch.manual_seed(seed)
                trained = train(images[:-1:2], labels[:-1:2], weight, wrap, steps=200)
                with torch.no_grad():
                    samples = trained.generator(torch.randn(1000, latent_dim), labels_of_1000)
                right = accuracy(trained.discriminator, images[1::2], labels[1::2])
                mmd2 = digits.pooled_pixel_mmd2(samples)
                print(
                    f"{wrap.__name__}, weight {weight}, seed {seed}: MMD^2 {mmd2:.3f}, accuracy {right:.3f}", flush=True
                )
