"""`dspex` and `python -m dspex`."""


def main() -> None:
    from dspex.application.commands import application
    from dspex.interfaces.cli.app import build

    build(application())()


if __name__ == "__main__":
    main()
