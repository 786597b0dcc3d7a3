from rlaif_lab.cli.audit import main

main()
