"""Stop words that belong to published models: they were trained without them, and have learned no weight for them."""

NLTK_ENGLISH = frozenset(
    (
        "i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers "
        "herself it its itself they them their theirs themselves what which who whom this that these those am is are "
        "was were be been being have has had having do does did doing a an the and but if or because as until while of "
        "at by for with about against between into through during before after above below to from up down in out on "
        "off over under again further then once here there when where why how all any both each few more most other "
        "some such no nor not only own same so than too very s t can will just don should now d ll m o re ve y ain "
        "aren couldn didn doesn hadn hasn haven isn ma mightn mustn needn shan shouldn wasn weren won wouldn"
    ).split()
)
"""NLTK's, without those with an apostrophe, which are no single token."""

QUESTIONS = frozenset("how what when where which who why".split())
"""Words of that list that TILDEv2 keeps."""

DEEPIMPACT = frozenset(
    (
        "a about also am an and another any anyone are as at be been being but by despite did do does doing done each "
        "etc every everyone for from further had has have having he her here hers herself him himself his however i if "
        "in into is it its itself just like lot may me might my myself no nor not of on onto or other ought our ours "
        "ourselves out over shall she since so some something such than that the their theirs them themselves then "
        "there these they this those through tht to too usually very via was we well will with without would yes yet "
        "you your yours yourself yourselves "
        # what is left of contractions without their apostrophe
        "arent didnt doesnt dont hadnt hasnt havent hed heres hes hell id ill im isnt ive lets mightnt oughtnt shant "
        "shed shell shes thats theres theyd theyll theyre theyve wasnt wed were werent weve wont wouldnt youd youll "
        "youre youve"
    ).split()
)
"""Of the queries that DeepImpact was trained and measured with. The contractions make "ill", "hell", "shell", "shed",
"wed", "id" and "were" stop words."""
