"""A small variational autoencoder: networks through ``pyro.module``, a subsampling plate, methods as programs."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn


class VAE:
    def __init__(self, size=6, latent=2, hidden=8):
        self.latent = latent
        self.encoder = nn.Sequential(nn.Linear(size, hidden), nn.Tanh(), nn.Linear(hidden, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.BatchNorm1d(hidden), nn.Linear(hidden, size))

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x), subsample_size=20) as batch:
            z = pyro.sample("z", dist.Normal(torch.zeros(len(batch), self.latent), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x[batch])

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x), subsample_size=20) as batch:
            loc, log_scale = self.encoder(x[batch]).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


vae = VAE()


def data():
    return ((torch.rand(50, 6) < torch.tensor([0.9, 0.9, 0.9, 0.1, 0.1, 0.1])).float(),)
