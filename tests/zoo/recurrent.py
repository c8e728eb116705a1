"""Recurrent nets: units of every layer and direction, projections, what is read of the result."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunec.models.fastgrnn import FastGRNN
from prunec.models.low_rank import LowRank
from zoo.parts import Net, member


@member((6, 5))
def lstm() -> nn.Module:
    def rule(m: Net, x: Tensor) -> Tensor:
        hidden, _ = m.memory(F.relu(m.stem(x)))
        return m.head(F.relu(m.mix(hidden[:, -1])))

    return Net(
        rule,
        stem=nn.Linear(5, 8),
        memory=nn.LSTM(8, 6, batch_first=True),
        mix=nn.Linear(6, 8),
        head=nn.Linear(8, 3),
    )


@member((12, 4))
def convolution_then_gru() -> nn.Module:
    def rule(m: Net, x: Tensor) -> Tensor:
        x = F.relu(m.second(F.relu(m.first(x.transpose(1, 2)))))
        _, last = m.memory(x.transpose(1, 2))
        return m.head(last[-1])

    return Net(
        rule,
        first=nn.Conv1d(4, 8, 3, padding=1),
        second=nn.Conv1d(8, 6, 3, padding=1),
        memory=nn.GRU(6, 5, batch_first=True),
        head=nn.Linear(5, 3),
    )


def _read_at_the_end(memory: nn.Module, width: int) -> nn.Module:
    """Features, a recurrent part, and the mean over time of what it says."""

    def rule(m: Net, x: Tensor) -> Tensor:
        return m.head(torch.tanh(m.memory(F.relu(m.stem(x)))[0]).mean(1))

    return Net(rule, stem=nn.Linear(5, 8), memory=memory, head=nn.Linear(width, 3))


@member((6, 5))
def lstm_of_two_layers_and_directions() -> nn.Module:
    memory = nn.LSTM(8, 6, num_layers=2, bidirectional=True, batch_first=True)
    return _read_at_the_end(memory, 12)


@member((6, 5))
def lstm_with_projection() -> nn.Module:
    """Eight units in the cells, four of which are said and remembered."""
    return _read_at_the_end(nn.LSTM(8, 8, proj_size=4, batch_first=True), 4)


@member((6, 5))
def gru_of_two_layers() -> nn.Module:
    return _read_at_the_end(nn.GRU(8, 6, num_layers=2, batch_first=True, dropout=0.1), 6)


@member((6, 5))
def rnn_of_two_directions() -> nn.Module:
    memory = nn.RNN(8, 5, nonlinearity="relu", bidirectional=True, bias=False, batch_first=True)
    return _read_at_the_end(memory, 10)


@member((6, 5))
def rnn_time_first() -> nn.Module:
    """Time comes before the batch inside."""

    def rule(m: Net, x: Tensor) -> Tensor:
        said, last = m.memory(F.relu(m.stem(x)).transpose(0, 1))
        return m.head(said[0] + last[0])

    return Net(rule, stem=nn.Linear(5, 8), memory=nn.RNN(8, 6), head=nn.Linear(6, 3))


@member((3, 5))
def gru_cell_step_by_step() -> nn.Module:
    """The state is a sum of what each step says; the first one is written as zeros."""

    def rule(m: Net, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 6)
        for step in F.relu(m.stem(x)).unbind(1):
            state = m.cell(step, state)
        return m.head(state)

    return Net(rule, stem=nn.Linear(5, 8), cell=nn.GRUCell(8, 6), head=nn.Linear(6, 3))


@member((3, 5))
def lstm_cell_step_by_step() -> nn.Module:
    """The first step has no state; memory and state are read at the end."""

    def rule(m: Net, x: Tensor) -> Tensor:
        kept = None
        for step in F.relu(m.stem(x)).unbind(1):
            kept = m.cell(step, kept)
        return m.head(torch.cat(kept, 1))

    return Net(rule, stem=nn.Linear(5, 8), cell=nn.LSTMCell(8, 6), head=nn.Linear(12, 3))


@member((3, 6, 6))
def rnn_cell_beside_convolutions() -> nn.Module:
    """One cell remembers what two convolutions say, and scales their sum."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = F.relu(m.stem(x))
        state = None
        for name in ("first", "second"):
            made = F.relu(getattr(m, name)(x))
            state = m.cell(made.mean((2, 3)), state)
            x = x + made * state.sigmoid()[:, :, None, None]
        return m.head(x.mean((2, 3)))

    return Net(
        rule,
        stem=nn.Conv2d(3, 8, 3, padding=1),
        first=nn.Conv2d(8, 8, 3, padding=1),
        second=nn.Conv2d(8, 8, 1),
        cell=nn.RNNCell(8, 8, bias=False, nonlinearity="relu"),
        head=nn.Linear(8, 3),
    )


@member((5, 1, 4))
def fastgrnn_of_low_rank() -> nn.Module:
    """Four steps; ranks with a factor each, weights that every step reads."""
    return FastGRNN(3, 5, 6, rank_w=4, rank_u=5)


@member((2, 2, 3))
def fastgrnn_of_whole_matrices() -> nn.Module:
    return FastGRNN(3, 4, 6)


@member((7,))
def low_rank_layers() -> nn.Module:
    def rule(m: Net, x: Tensor) -> Tensor:
        return m.head(F.relu(m.mix(x)))

    return Net(rule, mix=LowRank(7, 8, 5), head=LowRank(8, 6, 4, scaled=False))
