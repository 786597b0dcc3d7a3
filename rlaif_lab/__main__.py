from rlaif_lab.run import main

main()
