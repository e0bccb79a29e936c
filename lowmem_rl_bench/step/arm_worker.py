"""One arm in a process of its own: it takes a step for each request, and answers what the step took."""

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.policy import import_unsloth, prepare_process
from lowmem_rl.errors import LowMemError
from lowmem_rl.workers import Requests
from lowmem_rl_bench.step.arms import ARMS, ArmTask


def main() -> None:
    """Serves until the caller is gone, or an error ends it."""
    requests = Requests()
    try:
        _serve(requests)
    except LowMemError as error:
        requests.fail(error)


def _serve(requests: Requests) -> None:
    start = requests.read()
    arm, device = ARMS[start["arm"]], Device(**start["device"])
    config = arm.configure(RunConfig.model_validate(start["config"]))
    prepare_process(config, device)
    if arm.stack != "trl":
        import_unsloth()
    from lowmem_rl_bench.step import stacks
    from lowmem_rl_bench.step.session import ArmSession

    policy = stacks.load(arm, config, device)
    requests.answer({"loaded": arm.name})
    session = ArmSession(arm, config, policy, lambda: requests.read() or {}, requests.answer)
    while request := requests.read():
        session.run(ArmTask(**request["begin"]))


if __name__ == "__main__":
    main()
