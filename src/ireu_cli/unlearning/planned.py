"""Which weights an edit changes, and which generators it has to reach and does."""

from ireu_cli.coverage import Coverage, coverage_in, groups_for, needed_taps, refuse_missed
from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encoders.reach import Reach
from ireu_cli.session import Session
from ireu_cli.unlearning.method import Method, Plan


def plan_edit(session: Session, encoder: ImageEncoder, method: Method) -> tuple[Plan, Reach, list[Coverage]]:
    """Choose the weights to change, and refuse an edit that does not reach the systems that the user names."""
    config = session.config
    groups, systems = groups_for(config.encoder, encoder), config.unlearn.systems
    wanted = needed_taps(systems, groups)
    plan = method.plan(encoder, config, wanted)
    reach = encoder.reach(plan.moving, class_token_only=plan.class_token_only)
    refuse_missed(systems, wanted, reach)
    return plan, reach, coverage_in(groups, reach, systems)
