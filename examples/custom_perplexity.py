"""The perplexity reward with terms of your own: how much likelier a completion makes the gold answer.

    lowmem-rl train --task hellaswag_free --reward examples/custom_perplexity.py:sure=1.0

It needs no verifier, so the answer can be any text. `low` is 0, or -1 if misleading reasoning is to cost.
"""

from lowmem_rl.rewards.perplexity import perplexity_reward

# A gain of less than a tenth is noise and pays nothing; half of 1 / PPL(answer | completion) is added.
sure = perplexity_reward("sure", low=-1.0, threshold=0.1, absolute=0.5)
