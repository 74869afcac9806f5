"""Phase 1: a head at a shallow block predicts the velocity."""

import torch

from stx.flow.interpolant import velocity_target


def test_term_is_the_error_of_the_velocity_over_the_rows_inside(awake, alignment, batch, hidden):
    model, head, rows = awake(1), alignment("velocity_head"), batch()
    states = hidden(model, rows, (2,))
    target = velocity_target(rows.latents, rows.noise, rows.t, interpolant="linear")
    losses = (head.velocity(states[2]) - target).square().mean((1, 2, 3))
    expected = 0.5 * losses[rows.in_window].mean()
    torch.testing.assert_close(head(rows, states).terms["velocity_head"], expected)


def test_head_is_not_zero_initialised_and_gives_an_image(alignment):
    velocity = alignment("velocity_head").velocity(torch.randn(3, 16, 32, generator=torch.Generator().manual_seed(0)))
    assert velocity.shape == (3, 4, 8, 8)
    assert velocity.abs().min() > 0


def test_gradient_reaches_the_blocks_up_to_the_head_and_no_further(awake, alignment, batch, hidden):
    model, head = awake(1), alignment("velocity_head")
    head(batch(), hidden(model, batch(), (2,))).terms["velocity_head"].backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    expected = ("x_embedder", "t_embedder", "y_embedder", "blocks.0", "blocks.1")
    assert reached == {name for name, _ in model.named_parameters() if name.startswith(expected)}
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_head_has_the_published_layers(alignment):
    shapes = {name: tuple(parameter.shape) for name, parameter in alignment("velocity_head").named_parameters()}
    assert shapes == {
        "projector.0.weight": (16, 32),
        "projector.0.bias": (16,),
        "projector.2.weight": (16, 16),
        "projector.2.bias": (16,),
        "projector.4.weight": (32, 16),
        "projector.4.bias": (32,),
        "linear.weight": (16, 32),
        "linear.bias": (16,),
    }


def test_a_head_that_is_trained_predicts_better_than_a_fresh_one(awake, alignment, batch, hidden):
    model, head = awake(1), alignment("velocity_head")
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=3e-3)

    def loss() -> torch.Tensor:
        return head(batch(), hidden(model, batch(), (2,))).terms["velocity_head"]

    before = loss().item()
    for _ in range(40):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.5 * before
