"`python -m emofeedback`: the command line, in the form that `accelerate launch --module` needs"
from emofeedback.cli.main import main

main()
