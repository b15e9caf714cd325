"""`python -m snowmelt_trainer`: one attempt of one run."""

from snowmelt_trainer.driver.main import main

if __name__ == "__main__":
    raise SystemExit(main())
