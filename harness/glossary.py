"""How to read a report: its words, one explanation each, shown in HTML and Markdown alike."""

from __future__ import annotations

GLOSSARY: tuple[tuple[str, str], ...] = (
    (
        "Gap",
        "the arm's held-out metric against its baseline's on the test rows, paired by seed and "
        "turned so that a positive number means the arm is worse. Training steps are never "
        "samples.",
    ),
    (
        "Interval",
        "two-sided 95% Student t interval over seeds. Ratios: the interval of the log ratio, "
        "mapped back. One seed gives no interval.",
    ),
    (
        "Margin",
        "how much worse still counts as a match. It stands in the matrix and is hashed before "
        "the first run; a margin changed later is called post hoc.",
    ),
    (
        "Supported",
        "the whole interval lies below the margin, the baseline itself improved by at least the "
        "margin, at least 3 seeds, and no run was lost.",
    ),
    (
        "Refuted",
        "the whole interval lies above the margin and no run of the baseline was lost. Or the arm "
        "can't be trained at these settings: each of its runs ran out of memory, diverged or became "
        "NaN, while every run of the baseline, in at least 3 seeds, did not.",
    ),
    (
        "Inconclusive",
        "anything else: the interval reaches over the margin, fewer than 3 seeds, a run without a "
        "result, no spread between seeds, nothing was learned that could be matched, or arms that "
        "differ in arguments which the matrix does not declare.",
    ),
    (
        "Not tested",
        "no seed finished in both arms. The sentence on top still counts the comparison.",
    ),
    (
        "Lens",
        "where a memory number was read: process-tree RSS (host memory of the worker and its "
        "children), NVML device memory (everything on the GPU), NVML process memory, torch "
        "reserved or allocated memory. Lenses can't be compared with one another.",
    ),
    (
        "Statistic",
        "peak: the highest sample. Growth: that peak minus the reading when the model was about "
        "to be loaded, which leaves out Python and its libraries. A peak shorter than the time "
        "between two samples can be missed.",
    ),
    (
        "RSS of a forked worker",
        "includes pages shared with the fork server that started it; growth leaves most of them "
        "out.",
    ),
    (
        "Phase",
        "the innermost span that the worker marked: load, build, evaluate, train, generate, "
        "weight sync, save. Training phases are train, generate and weight sync.",
    ),
    (
        "Tokens/s",
        "non-padding tokens trained on (prompt and completion) over the wall time of the "
        "counted steps. Generated tokens/s: sampled tokens over the time spent generating.",
    ),
    (
        "FLOPs per step",
        "matrix multiplications of forward and backward, from the weights and the tokens of a "
        "step; attention scores, recomputation and generation are left out.",
    ),
    (
        "GPU energy, power, use",
        "read through NVML in the training phases. Energy: last minus first reading of the GPU's "
        "counter, evaluations between them included. Several GPUs: energy and power summed, use "
        "averaged, the highest temperature.",
    ),
    (
        "NLL",
        "negative log-likelihood of held-out completions, nats per completion token: lower is "
        "better. Reward: mean over sampled completions, higher is better.",
    ),
    (
        "Reward integrity",
        "whether the reward could teach anything, as the mean over a run's steps, then over seeds. "
        "No answer read: the reward found none in what it judges (after </think>, outside closed "
        "reasoning blocks, or anywhere, by reward). Not scored: the gold answer could not be read. "
        "Groups without variance: all completions of a prompt scored the same, which gives no "
        "gradient. Cut at the limit, groups and lengths are TRL's own figures; steps that reuse an "
        "earlier generation are left out.",
    ),
)

# Of a study whose matrix says what it claims.
CLAIM_GLOSSARY: tuple[tuple[str, str], ...] = (
    (
        "Claim",
        "a sentence of the page or the blog with what decides it: arms, a quantity, what is allowed, "
        "a rule. It is tested in parts: supported if every part is, refuted if any is.",
    ),
    (
        "Control",
        "a comparison whose answer is known. A positive control must be refuted, a negative one "
        "supported; if not, the study sees too little or too much, and a banner says so.",
    ),
    (
        "Holm",
        "among many claims some would be decided by luck. A word stands only if its p value, "
        "corrected by Holm over all claims of the study, is at most 0.05. Counts need none.",
    ),
    (
        "TOST",
        "two one-sided tests: whether two arms are equal within the margin, both ways. A match asks "
        "only that the arm is not worse.",
    ),
    (
        "Selection seeds",
        "seeds that learning rates are chosen on, by validation rows. No arm is judged on them.",
    ),
    (
        "Post hoc",
        "what decides a verdict was changed after the first run. The words still stand here, and "
        "prove less.",
    ),
)
