"""Three independent experiment packages: hypergrid, bitseq, mols."""

from setuptools import find_packages, setup

setup(
    name="gflownet-tlm",
    version="0.1.0",
    description="Backward policies of GFlowNets by trajectory likelihood maximisation: a reproduction",
    python_requires=">=3.11",
    packages=find_packages(include=["hypergrid*", "bitseq*", "mols*"]),
    package_dir={"": "."},
    package_data={"": ["*.md", "*.sh", "sweeps/*.sh", "results/*", "*.bib", "*.pt", "*.csv"]},
    # The versions of requirements.txt, so that this file alone installs the same set.
    install_requires=[
        "matplotlib==3.11.2",
        "ml-collections==1.1.0",
        "numba==0.68.1",
        "numpy==1.26.4",
        "pandas==3.0.6",
        "pooch==1.9.0",
        "pydantic==2.14.3",
        "pytest==9.2.0",
        "pytest-xdist==3.8.0",
        "rdkit==2026.9.1",
        "scipy==1.17.1",
        "tensorboard==2.21.0",
        "torch==2.13.0",
        "torch-geometric==2.8.1",
        "torchgfn==2.4.1",
        "tqdm==4.70.1",
        "wandb==0.30.0",
    ],
    extras_require={"cluster": ["ray==2.60.0"], "dev": ["ruff==0.17.6"], "qm9": ["qm9pack==1.0.3"]},
)
