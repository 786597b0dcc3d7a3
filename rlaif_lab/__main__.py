from rlaif_lab.cli.lab import main

main()
