"""Function words of the languages that captions are most often written in: they name no concept."""

# Articles, pronouns, prepositions, conjunctions, auxiliaries and adverbs of degree, lower case, two letters or more.
# What is a noun in another of these languages is left out (German "hat", Dutch "van", Spanish "sea").
BY_LANGUAGE = {
    "en": """
        about above across after again against ago all almost along already also although always am among an and
        another any anyone are around as at away be became because become been before behind being below beside
        besides between beyond both but by can can't cannot could did do does doesn't doing don't done down due
        during each either else etc even ever every everyone everything few for from further get gets getting go
        goes going gone got had has have having he her here hers herself him himself his how however if in inside
        into is isn't it it's its itself just less let let's like made make makes many may me might more most much
        must my myself near neither next no nor not nothing now of off often on once one's only onto or other others
        our ours ourselves out outside over own per perhaps please quite rather really same several shall she should
        since so some someone something still such than that that's the their theirs them themselves then there
        these they this those though through throughout to together too toward towards under until up upon us very
        via was wasn't we well were what when where whether which while who whole whom whose why will with within
        without won't would yet you you're your yours yourself
    """,
    "de": """
        aber alle allem allen aller alles als also am an auch auf aus bei beim bis bist da damit dann das dass dein
        deine dem den denn der des die dies diese diesem diesen dieser dieses doch dort du durch ein eine einem
        einen einer eines er es euch euer für gegen haben hatte hier ich ihm ihn ihnen ihr ihre ihrem ihren ihrer im
        in ins ist ja jede jedem jeden jeder jedes jetzt kann kein keine keinen können mehr mein meine mich mir mit
        nach nicht noch nur ob oder ohne schon sehr sein seine seinem seinen seiner seit sich sie sind so soll um
        und uns unser unsere unter vom von vor waren was wenn wer wieder wir wird wurde zu zum zur zwischen über
    """,
    "fr": """
        ai au aucun aussi autre aux avant avec avez avoir avons ce ceci cela celle celui ces cet cette chaque chez
        comme dans de des donc dont du elle elles en encore entre est et eu eux fait il ils je la le les leur leurs
        lui ma mais me mes moi mon même ne ni nos notre nous on ont ou où par pas peu plus pour qu que quel quelle
        qui sa sans se ses si sont sous sur ta tes toi ton tous tout toute toutes tu un une vers vos votre vous été
        être
    """,
    "es": """
        al algo ante antes aquel aquella aquí así aún bajo cada como con contra cual cuando de del desde donde dos
        el ella ellas ellos en entre era es esa ese eso esta este esto estos está fue ha había han hasta hay la las
        le les lo los me mi mis muy más ni no nos nosotros nuestra nuestro os otra otro para pero por porque que
        quien qué se según ser si sin sobre su sus también te tiene tu tus un una unas uno unos ya yo él
    """,
    "pt": """
        ao aos aquela aquele as até com como da das de dela dele depois do dos ela elas ele eles em entre era essa
        esse esta este está eu foi foram há isso isto já lhe mais mas me mesmo meu minha muito na nas nem no nos
        nossa nosso num numa não os ou para pela pelas pelos por porque quando que quem se sem ser seu seus sobre
        sua suas são só também te tem teu um uma umas uns você
    """,
    "it": """
        agli ai al alla alle allo anche che chi ci coi col come con cui da dagli dai dal dalla dalle dei del della
        delle dello di ed era essere fra gli ha hanno ho il in io la le lei lo loro lui ma mi mio molto ne negli nei
        nel nella nelle nello noi non nostra nostro per perché più quale quando quella quello questa questo se senza
        si sia sono sta su sua sue sugli sui sul sulla suo suoi tra tu tua tuo tutti tutto un una uno voi
    """,
    "nl": """
        aan al als bij dan dat de deze die dit doch dus een en er ge geen haar heb hebben heeft hem het hier hij hun
        ik in is ja je kan kon maar me men mij mijn moet na naar niet nog nu of om omdat ons ook op over te tegen
        toch toen tot uit uw veel voor waren was wat we werd wij wil worden wordt zich zij zijn zo zonder zou
    """,
    "ru": """
        без был была были было быть вас во вот все всех всё вы где да для до его ее если есть её же за из или им их
        как когда кто ли меня мне мой мы на над нас не него нет но ну об он она они оно от по под при про со так там
        то того только тот ты уже что чтобы эта эти это этот
    """,
}

STOP_WORDS = frozenset(word for words in BY_LANGUAGE.values() for word in words.split())
