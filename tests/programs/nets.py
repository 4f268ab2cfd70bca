"""A network as the attribute of a module, for programs that import the module."""

from torch import nn

net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
