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
        "children), NVML device memory (everything on the GPU), the same above what was in use before "
        "the run, NVML process memory, torch reserved or allocated memory. Lenses can't be compared "
        "with one another.",
    ),
    (
        "Statistic",
        "peak: the highest sample. Growth: that peak minus the reading when the model was about "
        "to be loaded, which leaves out Python and its libraries. 99th percentile: at or below it for "
        "99% of the time. Mean: each sample weighs the time around it. torch counts peaks alone. A peak "
        "shorter than the time between two samples can be missed; on CUDA torch's counter says by how "
        "much at most.",
    ),
    (
        "Grade of measurement",
        "A to D, with what lowered it: gaps and rate of sampling, too few steps, other processes on the "
        "GPU, lenses that contradict one another, a device that was lost; for a run also throttling and "
        "clocks that drift. What was not recorded counts as B at best. No verdict on memory rests on a "
        "lens graded D.",
    ),
    (
        "What a peak is made of",
        "weights, gradients and optimizer state by count (parameters times bytes), a vLLM pool, context "
        "and fragmentation read off the lenses; activations, logits and temporaries follow one another "
        "within a step and stay one part. The parts add up to the measured peak.",
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
        "counted steps. Generated tokens/s: sampled tokens over the time spent generating, "
        "without the sync of weights.",
    ),
    (
        "FLOPs per step",
        "matrix multiplications of forward and backward, from the weights and the tokens of a "
        "step; attention scores, recomputation and generation are left out.",
    ),
    (
        "GPU energy, power, use",
        "read through NVML in the training phases. Energy: from the GPU's counter, or the power samples "
        "integrated where it has none; evaluations are left out. Energy per token: over all tokens that "
        "were trained on. Several GPUs: energy and power summed, use averaged, the highest temperature.",
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
