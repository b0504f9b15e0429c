"""A torch script taken over: its optimizer and scheduler, its run, and its optimizer's state."""

import jax
import jax.numpy as jnp
import torch

import jaxsched
from jaxsched.torch import (
    assert_optimizer_matches,
    export_state,
    from_torch,
    import_state,
    match_names,
    numbers,
    parameter_labels,
    record,
)


def main() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in model.parameters() if p.ndim < 2]},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    names = ["weight", "bias"]
    recipe: jaxsched.Recipe = from_torch(optimizer, scheduler, labels=names, steps_per_epoch=3)
    labels = parameter_labels(model, optimizer, names)

    x, y = torch.randn(8, 4), torch.arange(8) % 3
    with record(optimizer, names) as recording:
        for iteration in range(6):
            loss = torch.nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if iteration % 3 == 2:
                scheduler.step()
    report = jaxsched.compare(recipe, recording.trace)
    assert report, str(report)
    assert len(recording) == 6

    arrays = {
        name: jnp.asarray(parameter.detach().numpy())
        for name, parameter in model.named_parameters()
    }
    tx = recipe.optimizer(labels)
    mapping = numbers(model, optimizer)
    state = import_state(optimizer.state_dict(), tx, arrays, mapping, iteration=6)
    updates, state = tx.update(arrays, state, arrays)
    assert jax.tree.structure(updates) == jax.tree.structure(arrays)
    exported = export_state(state, arrays, mapping, like=optimizer.state_dict())
    matches = match_names({"0": {"kernel": jnp.ones((4, 8))}}, dict(model.named_parameters()))

    def factory(params: dict[str, torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(params.values(), lr=0.1, momentum=0.9)

    assert_optimizer_matches(jaxsched.optimizers.sgd(0.1, 0.9), factory, updates=5)
    print(f"{len(recording.trace)} updates, {len(exported['state'])} buffers, {matches.mapping}")


if __name__ == "__main__":
    main()
