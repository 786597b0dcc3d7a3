from rlaif_lab.audit.cli import main

main()
