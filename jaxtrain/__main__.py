"""`python -m jaxtrain` is the `jaxtrain` command."""

from jaxtrain.cli import main

if __name__ == "__main__":
    main()
