"""The name of a policy's weights on a card."""

from __future__ import annotations

from tests.rehearsal.stage import Stage


def digests_with_the_embedding_moved() -> tuple[str, str]:
    """Returns the weights' digest before and after the embedding has gone to the host, as Unsloth moves it."""
    from lowmem_rl.engine.adapter import weights_digest
    from tests.rehearsal import policies

    policy = policies.load()[1]
    on_the_card = weights_digest(policy)
    embedding = policy.model.get_input_embeddings()
    assert embedding.weight.is_cuda
    embedding.weight.data = embedding.weight.data.cpu()
    assert not embedding.weight.is_cuda
    return on_the_card, weights_digest(policy)


def test_weights_on_several_devices_have_the_digest_of_the_same_weights_on_one(a6000: Stage) -> None:
    on_the_card, on_both = a6000.call(digests_with_the_embedding_moved)
    assert on_both == on_the_card
