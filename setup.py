"""Three independent experiment packages: hypergrid, bitseq, mols."""

from setuptools import find_packages, setup

setup(
    name="gflownet-tlm",
    version="0.2.0",
    description="Backward policies of GFlowNets by trajectory likelihood maximisation: a reproduction",
    python_requires=">=3.11",
    packages=find_packages(include=["hypergrid*", "bitseq*", "mols*"]),
    package_dir={"": "."},
    package_data={"": ["*.md", "*.sh", "*.bib", "*.pt", "*.csv", "sweeps/*", "results/**"]},
    # Tried: all lowest versions together, by tests/common, tests/analysis and a run of each suite. Highest: the lock.
    install_requires=[
        "matplotlib>=3.8,<4",
        "ml-collections>=1.0,<2",
        "numba>=0.60,<0.69",
        "numpy>=1.26,<2",
        "pandas>=2.2,<4",
        "pooch>=1.8,<2",
        "pydantic>=2.10,<3",
        "rdkit>=2024.3.1,<2027",
        "scipy>=1.15,<2",
        "tensorboard>=2.18,<3",
        "tensordict>=0.10,<0.15",
        "torch==2.13.0",  # its CPU build is at hand; golden runs are of this version
        "torch-geometric>=2.6.1,<3",
        "torchgfn>=2.4.1,<3",
        "tqdm>=4.66,<5",
        "wandb>=0.19.1,<0.31",
    ],
    extras_require={
        "test": ["pytest>=8.2,<10", "pytest-cov>=7.1,<8", "pytest-xdist>=3.8,<4"],
        # Exact, because each version of a tool asks for something else.
        "dev": ["mypy==2.4.1", "pandas-stubs==3.1.0.261029", "pre-commit==4.7.0", "ruff==0.17.6"],
        "cluster": ["ray>=2.60,<3"],
        "qm9": ["qm9pack>=1.0.3,<2"],
    },
)
