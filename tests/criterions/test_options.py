"""Options of the strategies that have no meaning end in one sentence: the option, its value, and what is allowed."""

import pytest
from conftest import TRANSFORMER
from fairseq import options


@pytest.fixture(scope="module")
def task(build):
    return build(f"{TRANSFORMER} --criterion gift_standard").task


def build_criterion(task, flags):
    """As fairseq does where it is given a namespace of options."""
    parser = options.get_training_parser()
    return task.build_criterion(options.parse_args_and_arch(parser, ["data", *TRANSFORMER.split(), *flags.split()]))


BEST = "--criterion gift_generative --targets best"
ANCHORED = "--criterion gift_risk --anchor kl --anchor-weight"


@pytest.mark.parametrize(
    "flags, option, value, way_out",
    [
        # what one of them does not allow
        ("--criterion gift_auxiliary --auxiliary-ratio 1.5", "--auxiliary-ratio", "1.5", "between 0 and 1"),
        ("--criterion gift_auxiliary --auxiliary-ratio nan", "--auxiliary-ratio", "nan", "between 0 and 1"),
        ("--criterion gift_recurrent --passes 0", "--passes", "0", "1 or more"),
        ("--criterion gift_standard --label-smoothing -1", "--label-smoothing", "-1", "between 0 and 1"),
        ("--criterion gift_standard --ignore-prefix-size -1", "--ignore-prefix-size", "-1", "0 or more"),
        ("--criterion gift_recurrent --gold-ratio square:1:0:9", "--gold-ratio", "square:1:0:9", "exponential"),
        ("--criterion gift_recurrent --gold-ratio linear:1:2:9", "--gold-ratio", "linear:1:2:9", "between 0 and 1"),
        ("--criterion gift_risk --generate-ratio x", "--generate-ratio", "x", "linear:1:0.5:10000"),
        ("--criterion gift_recurrent --confidence -1", "--confidence", "-1", "between 0 and 1"),
        ("--criterion gift_recurrent --gold-mixed-by word", "--gold-mixed-by", "word", "token, sentence"),
        ("--criterion gift_recurrent --targets best", "--targets", "best", "gold, oracle"),
        ("--criterion gift_recurrent --choose beam", "--choose", "beam", "argmax, sample"),
        ("--criterion gift_generative --targets oracle --oracle-weights x", "--oracle-weights", "x", "uniform, model"),
        ("--criterion gift_generative --rollout-dtype fp8", "--rollout-dtype", "fp8", "model, bf16, fp16"),
        ("--criterion gift_generative --anchor ewc --anchor-weight 1", "--anchor", "ewc", "none, kl, l2"),
        ("--criterion gift_generative --targets oracle --length-cap 0.9", "--length-cap", "0.9", "1 or more"),
        ("--criterion gift_generative --targets oracle --length-cap nan", "--length-cap", "nan", "1 or more"),
        ("--criterion gift_generative --choose sample --temperature 0", "--temperature", "0", "above 0"),
        ("--criterion gift_generative --choose sample --temperature inf", "--temperature", "inf", "finite"),
        ("--criterion gift_generative --choose sample --top-k -1", "--top-k", "-1", "0 or more"),
        ("--criterion gift_generative --choose sample --top-k 1", "--top-k", "1", "2 or more"),
        ("--criterion gift_risk --top-k 1", "--top-k", "1", "2 or more"),
        ("--criterion gift_generative --targets oracle --length-cap inf", "--length-cap", "inf", "finite"),
        ("--criterion gift_generative --anchor l2 --anchor-weight inf", "--anchor-weight", "inf", "finite"),
        ("--criterion gift_distillation --margin inf", "--margin", "inf", "finite"),
        ("--criterion gift_generative --mle-weight 2", "--mle-weight", "2", "between 0 and 1"),
        ("--criterion gift_generative --mle-weight -1", "--mle-weight", "-1", "between 0 and 1"),
        ("--criterion gift_generative --anchor-weight -1", "--anchor-weight", "-1", "0 or more"),
        ("--criterion gift_risk --candidates 1", "--candidates", "1", "2 or more"),
        ("--criterion gift_risk --candidates-from nbest", "--candidates-from", "nbest", "sample, beam"),
        ("--criterion gift_risk --risk-cost ter", "--risk-cost", "ter", "bleu, chrf"),
        ("--criterion gift_risk --risk-alpha 0", "--risk-alpha", "0", "above 0"),
        ("--criterion gift_risk --risk-alpha nan", "--risk-alpha", "nan", "above 0"),
        ("--criterion gift_risk --risk-weight 0", "--risk-weight", "0", "above 0"),
        ("--criterion gift_weighted --weighting mle", "--weighting", "mle", "tailr, gold"),
        ("--criterion gift_weighted --tailr-gamma nan", "--tailr-gamma", "nan", "between 0 and 1"),
        ("--criterion gift_weighted --weight-floor 0", "--weight-floor", "0", "above 0"),
        ("--criterion gift_weighted --weight-floor 1.1", "--weight-floor", "1.1", "between 0 and 1"),
        ("--criterion gift_weighted --weighting gold --tailr-gamma 0.2", "--tailr-gamma", "0.2", "leave it out"),
        ("--criterion gift_distillation --margin -1", "--margin", "-1", "0 or more"),
        ("--criterion gift_distillation --margin-weight 0", "--margin-weight", "0", "above 0"),
        ("--criterion gift_consistency --own-ratio 2", "--own-ratio", "2", "between 0 and 1"),
        ("--criterion gift_consistency --consistency-weight -1", "--consistency-weight", "-1", "between 0 and 100"),
        ("--criterion gift_consistency --consistency-weight x", "--consistency-weight", "x", "between 0 and 100"),
        ("--criterion gift_consistency --consistency-ratio 1.1", "--consistency-ratio", "1.1", "between 0 and 1"),
        (f"{BEST} --min-score -1", "--min-score", "-1", "0 or more"),
        (f"{BEST} --min-score 101", "--min-score", "101", "no score is above 100"),
        (f"{BEST} --length-tolerance 1.1", "--length-tolerance", "1.1", "between 0 and 1"),
        (f"{BEST} --candidates 0", "--candidates", "0", "1 or more"),
        (f"{BEST} --pick worst", "--pick", "worst", "best, random"),
        ("--criterion gift_generative --targets nearest", "--targets", "nearest", "gold, oracle, best"),
        # what belongs to best of n
        ("--criterion gift_generative --candidates 8", "--candidates", "8", "add --targets best"),
        ("--criterion gift_generative --risk-cost chrf", "--risk-cost", "chrf", "add --targets best"),
        ("--criterion gift_generative --targets oracle --pick random", "--pick", "random", "add --targets best"),
        (f"{BEST} --choose sample --length-cap 2", "--length-cap", "2", "--length-tolerance"),
        (f"{BEST} --oracle-weights model", "--oracle-weights", "model", "add --targets oracle"),
        (f"{BEST} --candidates 8", "--candidates", "8", "--choose sample for 2 or more"),
        (f"{BEST} --candidates 1 --choose sample", "--choose", "sample", "--choose argmax for 1"),
        (f"{BEST} --candidates-from beam --choose sample", "--choose", "sample", "leave out --candidates-from beam"),
        # what nothing samples
        ("--criterion gift_consistency --choose sample", "--choose", "sample", "give --own-ratio"),
        ("--criterion gift_consistency --rollout-dtype bf16", "--rollout-dtype", "bf16", "give --own-ratio"),
        # what belongs to the margin
        ("--criterion gift_distillation --margin 0 --margin-weight 3", "--margin-weight", "3", "leave it out"),
        ("--criterion gift_consistency --own-ratio 0.1 --top-k 3", "--top-k", "3", "add --choose sample"),
        ("--criterion gift_recurrent --temperature 2", "--temperature", "2", "add --choose sample"),
        ("--criterion gift_generative --top-k 5", "--top-k", "5", "add --choose sample"),
        ("--criterion gift_risk --candidates-from beam --temperature 2", "--temperature", "2", "leave out"),
        ("--criterion gift_risk --candidates-from beam --top-k 5", "--top-k", "5", "leave out --candidates-from beam"),
        # what belongs to the oracle
        ("--criterion gift_recurrent --oracle-weights model", "--oracle-weights", "model", "add --targets oracle"),
        ("--criterion gift_generative --length-cap 2", "--length-cap", "2", "add --targets oracle"),
        # what graphs cannot do
        ("--criterion gift_generative --rollout-cuda-graphs --choose sample", "--rollout-cuda-graphs", "", "leave out"),
        ("--criterion gift_generative --rollout-cuda-graphs --targets oracle", "--rollout-cuda-graphs", "", "leave"),
        # a share that leaves nothing
        ("--criterion gift_generative --mle-weight 1", "--mle-weight", "1", "use --criterion gift_standard"),
        ("--criterion gift_recurrent --confidence 1", "--confidence", "1", "use --criterion gift_standard"),
        ("--criterion gift_recurrent --confidence 0.5", "--confidence", "0.5", "add --choose sample"),
        ("--criterion gift_recurrent --confidence 0.5 --passes 3", "--confidence", "0.5", "add --choose sample"),
        ("--criterion gift_recurrent --gold-ratio-steps 0.5", "--gold-ratio-steps", "0", "a value above 0"),
        ("--criterion gift_recurrent --gold-mixed-by sentence", "--gold-mixed-by", "sentence", "--gold-ratio is 0"),
        ("--criterion gift_recurrent --gold-ratio 1 --gold-ratio-steps 0", "--gold-ratio-steps", "0", "instead"),
        (
            "--criterion gift_recurrent --gold-ratio 1 --gold-mixed-by sentence --gold-ratio-steps linear:1:0:9",
            "--gold-ratio-steps",
            "",
            "--gold-mixed-by sentence keeps alike",
        ),
        # regularisation by half
        ("--criterion gift_recurrent --anchor l2", "--anchor", "l2", "a weight above 0"),
        ("--criterion gift_recurrent --anchor-weight 0.5", "--anchor-weight", "0.5", "kl or l2"),
        (f"{ANCHORED} 0.5", "--anchor", "kl", "--finetune-from-model"),
        (f"{ANCHORED} 0", "--anchor-weight", "0", "a weight above 0"),
    ],
)
def test_options_without_meaning(task, flags, option, value, way_out):
    """Where each works alone, or with another, the sentence says with what."""
    with pytest.raises(SystemExit) as stopped:
        build_criterion(task, flags)
    message = str(stopped.value)
    assert message.startswith("gift_fairseq: error: --") and "\n" not in message
    assert option in message and value in message and way_out in message


@pytest.mark.parametrize(
    "flags",
    [
        "--criterion gift_recurrent --choose sample --temperature 0.5 --top-k 5",
        "--criterion gift_recurrent --targets oracle --oracle-weights model",
        "--criterion gift_recurrent --gold-ratio linear:1:0:9 --gold-ratio-steps exponential:1:0.1:30 --confidence 0.4",
        "--criterion gift_recurrent --confidence 0.9 --choose sample",
        "--criterion gift_recurrent --gold-ratio 0.5 --gold-mixed-by sentence --passes 2 --mle-weight 0.9",
        "--criterion gift_generative --targets oracle --length-cap 1 --generate-ratio linear:0:0.2:1000",
        "--criterion gift_generative --rollout-cuda-graphs --rollout-dtype bf16",
        f"{BEST} --candidates 1 --mle-weight 0.5 --anchor none",
        f"{BEST} --choose sample --candidates 8 --temperature 0.5 --top-k 9 --risk-cost chrf --pick random",
        f"{BEST} --candidates-from beam --length-tolerance 0",
        "--criterion gift_risk --candidates 2 --temperature 2 --top-k 5 --risk-gold --risk-alpha 1 --length-cap 3",
        "--criterion gift_risk --candidates-from beam --risk-cost chrf --mle-weight 0.5",
        "--criterion gift_weighted --weighting gold --weight-floor 0.2",
        "--criterion gift_weighted --tailr-gamma 1 --weight-floor 1",
        "--criterion gift_consistency --own-ratio 0.2 --choose sample --share-encoder --consistency-weight 2.5",
    ],
)
def test_what_makes_sense_is_not_refused(task, flags):
    build_criterion(task, flags)
