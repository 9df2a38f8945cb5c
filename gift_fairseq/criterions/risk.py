"""risk: the expected cost of whole hypotheses, by a sentence-level score."""

from dataclasses import dataclass

from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterionConfig

from gift_fairseq.criterions.base import GiftCriterion, MixFlags
from gift_fairseq.objectives.risk import RiskFlags, RiskObjective
from gift_fairseq.prefixes.candidates import CandidatePrefixes, WeighedFlags


@dataclass
class RiskConfig(WeighedFlags, RiskFlags, MixFlags, LabelSmoothedCrossEntropyCriterionConfig):
    pass


@register_criterion("gift_risk", dataclass=RiskConfig)
class RiskCriterion(GiftCriterion):
    """``sum_b n_b sum_c (Q(c) (cost(c) - risk)) log P(c)`` on the chosen updates, ``sum l(x)`` on the others.

    Minimum risk training (Shen et al. 2016, Minimum Risk Training for Neural Machine Translation, section 3): c are the
    distinct hypotheses of a set that is drawn anew every time, ``P(c)`` their probabilities by the model, ``Q(c) =
    P(c)^a / sum_c' P(c')^a`` with a ``--risk-alpha``, and ``risk = sum_c Q(c) cost(c)``. No gradient goes through what
    is in brackets, so the gradient is that of ``risk / a`` over the given set, exactly, at every alpha and temperature.
    Dividing by a, which is no more than a step size in theirs, keeps that size for every a. ``n_b``, the number of
    scored gold tokens, gives a sentence the weight that it has in the token loss averaged over tokens; it is 1 with
    ``--sentence-avg``. Mixed with the token loss by ``--mle-weight``, as Edunov et al. (2018, Classical Structured
    Prediction Losses for Sequence to Sequence Learning) do. Wang and Sennrich (2020, On Exposure Bias, Hallucination
    and Domain Shift in Neural Machine Translation) leave the gold translation out of the candidates, which is the
    default here.

    Over all sets that may be drawn, its mean is not in general the gradient of the expected cost under the whole model.
    The tests enumerate small distributions, with N = 4 draws; the scale is the part along that gradient:

    - With a near 0 and temperature 1, a set without equal draws gives REINFORCE with the mean cost as its baseline,
      whose mean is ``1 - 1/N`` times that gradient where equal draws count each. Here they count once, which changes
      the scale but hardly the direction: cosine 1.00, scale 0.83 (0.79 to 0.96) at a = 0.005.
    - At a temperature other than 1, or with ``--top-k``, the candidates come from another distribution and the estimate
      is biased: at temperature 0.5 cosine 0.96 (0.86 to 1.00), scale 0.56 (0.04 to 0.99), the smaller the more one
      hypothesis outweighs the others. Weighing draws by P over the probability of being drawn would mend that for many
      draws only: for four, cosine 0.97, scale 0.51.
    - A larger a trusts the probabilities within the set: at a = 1 and temperature 1 cosine 0.98, scale 0.62. A beam
      and ``--risk-gold`` are no samples at all.

    The cost is of the text without the forced tokens of ``--ignore-prefix-size``. ``loss`` is logged so that it
    compares with that of other updates: in place of the above, whose value means nothing, stands the mean negative
    log-likelihood of a sentence's candidates, as in ``nll_loss``, mixed with the gold loss by ``--mle-weight``.
    ``risk`` shows the expected cost.

    Where we differ: candidates come from the rollout engine, in one batch and without decoder dropout, over the encoder
    pass that is trained on; the cost is of whole words, by sacreBLEU.
    """

    def __init__(self, cfg, task):
        super().__init__(cfg, task)
        vocabulary = task.target_dictionary
        objective = RiskObjective(cfg, cfg.risk_gold, cfg.sentence_avg, self.symbols, vocabulary)
        self.train_on(CandidatePrefixes(cfg, self.symbols, vocabulary), objective, cfg)
