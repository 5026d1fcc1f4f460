import torch

from training.ega.explanation import explanation_cost


def test_cost_is_the_cross_entropy_of_naming_words():
    """Hand-solved: -ln 0.5 and -(ln 0.25 + ln 0.25) / 2; the third word names nothing."""
    attention = torch.tensor([[0.5, 0.5], [0.25, 0.25], [0.9, 0.1]])
    wanted = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 0.0]])
    assert torch.allclose(explanation_cost(attention, wanted), torch.tensor([0.5, 0.25, 1.0]).log().neg(), atol=1e-4)


def test_attention_of_nought_costs_much_but_not_everything():
    attention = torch.tensor([[1.0, 0.0]], requires_grad=True)
    cost = explanation_cost(attention, torch.tensor([[0.0, 1.0]])).sum()
    cost.backward()
    assert 10 < float(cost.detach()) < 20
    assert torch.isfinite(attention.grad).all()
