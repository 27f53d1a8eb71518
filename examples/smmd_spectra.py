"""Plot the singular values of the critic's layers in the course of a run of an smmd script (Fig. 2b and 7)."""

from arbel2018.figures.fig2b_singular_values import main

if __name__ == "__main__":
    import tyro

    tyro.cli(main)
