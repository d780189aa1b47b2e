"""TLM in anyone's torchgfn program: on three of torchgfn's environments, for its TB, DB and SubTB."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gfn.estimators import DiscretePolicyEstimator, ScalarEstimator
from gfn.gflownet import DBGFlowNet, SubTBGFlowNet, TBGFlowNet
from gfn.gym import DiscreteEBM, HyperGrid, SetAddition
from gfn.preprocessors import IdentityPreprocessor, KHotPreprocessor
from gfn.samplers import Sampler
from gfn.utils.modules import MLP
from gfn.utils.prob_calculations import get_trajectory_pbs

import hypergrid
from hypergrid import BackwardTraining, evaluation
from hypergrid.common.backward_loss import APPROACHES
from hypergrid.environment import GridEnvironment
from hypergrid.torchgfn.examples import discrete_ebm

ENVIRONMENTS = {
    "ebm": lambda: (DiscreteEBM(4, alpha=0.1), IdentityPreprocessor(4)),
    "grid": lambda: (HyperGrid(2, 8), KHotPreprocessor(8, 2)),
    "sets": lambda: (SetAddition(5, 3, lambda state: state.sum(-1) + 1), IdentityPreprocessor(5)),
}
USABLE = [name for name in APPROACHES if name != "maxent"]


class Program:
    """A torchgfn program: environment, P_F and P_B on one trunk, log F."""

    def __init__(self, name: str, seed: int = 1) -> None:
        torch.manual_seed(seed)
        self.environment, preprocessor = ENVIRONMENTS[name]()
        n_actions = self.environment.n_actions
        forward = MLP(preprocessor.output_dim, n_actions, hidden_dim=16)
        self.trunk = forward.trunk
        backward, flow = (MLP(preprocessor.output_dim, n, trunk=self.trunk) for n in (n_actions - 1, 1))
        self.pf = DiscretePolicyEstimator(forward, n_actions, preprocessor)
        self.pb = DiscretePolicyEstimator(backward, n_actions, preprocessor, is_backward=True)
        self.log_flow = ScalarEstimator(flow, preprocessor)
        self.uniform = DiscretePolicyEstimator.uniform(n_actions, preprocessor)

    def sample(self, n: int = 32):
        return Sampler(self.pf).sample_trajectories(self.environment, n=n)

    def gflownet(self, objective: str, scored):
        if objective == "tb":
            return TBGFlowNet(self.pf, scored, init_logZ=0.0)
        return {"db": DBGFlowNet, "subtb": SubTBGFlowNet}[objective](self.pf, scored, self.log_flow)


@pytest.fixture(params=ENVIRONMENTS)
def program(request) -> Program:
    return Program(request.param)


def test_the_loss_is_the_mean_over_trajectories_of_torchgfns_log_pb(program):
    backward = BackwardTraining(program.pb)
    trajectories = program.sample()
    expected = -get_trajectory_pbs(program.pb, trajectories).sum(0).mean().item()
    assert expected > 0.1
    assert backward.loss(trajectories).item() == pytest.approx(expected, abs=1e-6)
    assert backward.step(trajectories) == pytest.approx(expected, abs=1e-6)
    assert backward.step(trajectories) < expected  # it has learned


@pytest.mark.parametrize("approach", USABLE)
@pytest.mark.parametrize("objective", ["tb", "db", "subtb"])
def test_a_gflownet_scores_what_the_row_says(program, objective, approach):
    backward = BackwardTraining(program.pb, approach, target_decay=0.75, learning_rate=0.1)
    gflownet = program.gflownet(objective, backward.scored)
    own = [p for name, p in program.pb.named_parameters() if "last_layer" in name]  # P_B's alone
    before = [p.detach().clone() for p in own]
    trajectories = program.sample()
    backward.step(trajectories)
    learned = APPROACHES[approach].loss is not None
    assert all(torch.equal(p, old) != learned for p, old in zip(own, before, strict=True))

    loss = gflownet.loss_from_trajectories(program.environment, trajectories)
    loss.backward()
    assert loss.isfinite()
    assert all((p.grad is not None) == (approach == "naive") for p in own)
    assert all(p.grad is not None for p in program.trunk.parameters())  # P_F learns whatever P_B does

    scored, online, uniform = (
        get_trajectory_pbs(estimator, trajectories) for estimator in (backward.scored, program.pb, program.uniform)
    )
    if approach == "tlm":
        target = [p for name, p in backward.scored.named_parameters() if "last_layer" in name]
        for new, old, moved in zip(target, before, own, strict=True):
            torch.testing.assert_close(new, 0.75 * old + 0.25 * moved)
        assert not torch.allclose(scored, online)
    else:
        torch.testing.assert_close(scored, uniform if approach == "uniform" else online)


def test_the_program_of_the_page_runs():
    page = (Path(hypergrid.__file__).parent / "README.md").read_text(encoding="utf-8")
    code = page.partition("## TLM in your own")[2].partition("```python\n")[2].partition("```")[0]
    program = Program("sets")
    before = [p.detach().clone() for p in (*program.pf.parameters(), *program.pb.module.last_layer.parameters())]
    names = {"torch": torch, "pf": program.pf, "pb": program.pb, "env": program.environment, "n_iterations": 2}
    exec(code, names | {"sampler": Sampler(program.pf)})
    after = (*program.pf.parameters(), *program.pb.module.last_layer.parameters())
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_uniform_needs_no_pb_and_takes_no_step(program):
    backward = BackwardTraining(None, approach="uniform")
    trajectories = program.sample()
    assert backward.step(trajectories) is None and backward.loss(trajectories) is None
    gflownet = TBGFlowNet(program.pf, backward.scored, debug=True)  # with all of torchgfn's checks
    expected = TBGFlowNet(program.pf, program.uniform).loss(program.environment, trajectories)
    torch.testing.assert_close(gflownet.loss(program.environment, trajectories), expected)


@pytest.mark.parametrize("named", [False, True])
def test_a_shared_trunk_is_trained_by_both_optimisers_unless_it_is_named(named):
    program = Program("ebm")
    backward = BackwardTraining(program.pb, trunk=program.trunk if named else ())
    before = [p.detach().clone() for p in program.trunk.parameters()]
    backward.step(program.sample())
    assert all(torch.equal(p, old) == named for p, old in zip(program.trunk.parameters(), before, strict=True))
    assert all(p.grad is None for p in program.pb.parameters())  # nothing is left to P_F's step


def test_the_learning_rate_of_tlm_decays_and_pessimistics_does_not():
    for approach, expected in (("tlm", 0.02 * 0.5**3), ("pessimistic", 0.02)):
        program = Program("grid")
        backward = BackwardTraining(program.pb, approach, learning_rate=0.02, learning_rate_decay=0.5)
        for _ in range(3):
            backward.step(program.sample())
        (group,) = backward.state_dict()["learner"]["optimizer"]["param_groups"]
        assert group["lr"] == pytest.approx(expected)


def test_pessimistic_learns_from_recent_batches():
    program = Program("grid")
    backward = BackwardTraining(program.pb, "pessimistic", learning_rate=1e-12)  # so that the losses stay
    batches = [program.sample() for _ in range(25)]
    own = [round(backward.loss(batch).item(), 5) for batch in batches]
    seen = [round(backward.step(batch), 5) for batch in batches]
    assert seen != own and all(loss in own[max(0, i - 19) : i + 1] for i, loss in enumerate(seen))


@pytest.mark.parametrize("approach", USABLE)
def test_a_program_goes_on_from_its_state(approach):
    program, resumed = Program("grid"), Program("grid", seed=2)
    batches = [program.sample() for _ in range(6)]
    backward, other = (BackwardTraining(p.pb, approach) for p in (program, resumed))
    for batch in batches[:3]:
        backward.step(batch)
    file = io.BytesIO()
    torch.save(backward.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    for batch in batches[3:]:
        assert backward.step(batch) == other.step(batch)
    if approach != "uniform":
        pairs = zip(program.pb.parameters(), resumed.pb.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
        scored = [get_trajectory_pbs(b.scored, batches[0]) for b in (backward, other)]
        assert torch.equal(*scored)


def test_what_cannot_work_is_refused_with_the_reason():
    program = Program("ebm")
    for pb, approach, reason in (
        (program.pb, "maxent", "number of trajectories to every state"),
        (program.pb, "best", "take one of uniform, naive, tlm, pessimistic"),
        (None, "tlm", "give it a torchgfn policy estimator"),
        (program.pf, "naive", "is_backward=True"),
    ):
        with pytest.raises(ValueError, match=reason):
            BackwardTraining(pb, approach)


def test_the_package_itself_imports_neither_torch_nor_torchgfn():
    code = (
        "import sys, hypergrid; assert not {'torch', 'gfn'} & set(sys.modules); from hypergrid import load_estimators"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_example_measures_exactly():
    grid = GridEnvironment(2, 8, R0=0.1, R1=0.5, R2=2.0)  # torchgfn's own levels
    program = Program("grid")
    with torch.no_grad():
        states = grid.gfn.all_states
        policy = program.pf.to_probability_distribution(states, program.pf(states)).probs.double().numpy()
    terminal = evaluation.terminal_distribution(policy, grid)
    expected = np.abs(terminal - grid.true_distribution).sum() / 2
    assert discrete_ebm.total_variation(program.environment, program.pf) == pytest.approx(expected, abs=1e-6)


def test_the_example_prints_a_table_and_draws(tmp_path, capsys):
    out = tmp_path / "folder" / "picture.png"
    assert discrete_ebm.main(["--iterations", "10", "--out", str(out)]) == 0
    assert capsys.readouterr().out.count("| 0.") == 6 and out.stat().st_size > 10_000
    assert discrete_ebm.main(["--iterations", "9"]) == 2
    assert discrete_ebm.main(["--out", "picture.txt"]) == 2
    assert capsys.readouterr().err.count("error: ") == 2
