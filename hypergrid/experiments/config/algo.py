"""The algorithm of a hypergrid run: ``algo.py:NAME``, NAME one of tb, db, subtb, soft_dqn, munchausen_dqn.

``perfect`` (draws from R / Z: the floor) and ``uniform`` (uniform P_F) are references that learn nothing.
"""

from ml_collections import ConfigDict

LEARNING = ("tb", "db", "subtb", "soft_dqn", "munchausen_dqn")
REFERENCES = ("perfect", "uniform")


def get_config(name: str = "munchausen_dqn") -> ConfigDict:
    """The paper's settings of the named algorithm.

    Raises:
        ValueError: there is no such algorithm.
    """
    if name not in LEARNING + REFERENCES:
        raise ValueError(f"there is no algorithm {name!r}: it must be one of {', '.join(LEARNING + REFERENCES)}")
    config = ConfigDict()
    config.name = name
    if name in REFERENCES:
        return config
    config.backward_approach = "tlm"  # uniform, naive, maxent, tlm or pessimistic
    config.learning_rate = 1e-3  # Adam of P_F
    config.backward_learning_rate = 1e-3  # Adam of P_B (tlm, pessimistic)
    config.backward_learning_rate_decay = 0.999  # factor per step (tlm); 1: off
    config.target_decay = 0.75  # weight of the old parameters in the targets of P_B (tlm) and Q; 0: no target
    config.zero_initialisation = True  # whether a learned P_B starts at uniform
    config.tied_trunk = True  # whether P_F and P_B share the trunk
    config.update_order = "backward_first"  # or forward_first
    config.gradient_clipping = 0.0  # largest norm of a gradient; 0: off
    config.hidden_width = 256  # units of a hidden layer
    config.hidden_layers = 2  # hidden layers of the trunk
    if name == "tb":
        config.log_z_learning_rate = 0.1  # Adam of log Z
    if name == "subtb":
        config.subtb_lambda = 0.9  # weight per transition of a sub-trajectory's length
    if name in ("soft_dqn", "munchausen_dqn"):
        config.huber_delta = 1.0  # nats
        config.start_learning = 16  # iterations of sampling before learning starts
        config.replay_capacity = 100_000  # transitions
        config.replay_batch_size = 256  # transitions
        config.replay_priority_exponent = 0.5  # alpha of prioritised replay; 0: uniform
        config.replay_importance_exponent = 0.0  # beta of its importance weights; 0: none
    if name == "munchausen_dqn":
        config.m_alpha = 0.15  # Munchausen coefficient, in [0, 1)
        config.m_l0 = -100.0  # floor of the scaled log policy, nats
    return config
