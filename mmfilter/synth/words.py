"""The words that captions are made of, in English and in the other languages of the noise."""

# colour -> (RGB, English synonyms, de fr es it zh)
COLOURS: dict[str, tuple[tuple[int, int, int], tuple[str, ...], tuple[str, ...]]] = {
    "red": ((214, 32, 36), ("red", "red", "crimson"), ("Rot", "rouge", "rojo", "rosso", "红色")),
    "orange": ((245, 132, 20), ("orange",), ("Orange", "orange", "naranja", "arancione", "橙色")),
    "yellow": ((248, 222, 48), ("yellow", "yellow", "lemon yellow"), ("Gelb", "jaune", "amarillo", "giallo", "黄色")),
    "green": ((38, 148, 58), ("green", "green", "emerald"), ("Grün", "vert", "verde", "verde", "绿色")),
    "blue": ((34, 84, 208), ("blue",), ("Blau", "bleu", "azul", "blu", "蓝色")),
    "purple": ((126, 48, 168), ("purple", "purple", "violet"), ("Lila", "violet", "morado", "viola", "紫色")),
    "pink": ((246, 140, 186), ("pink",), ("Rosa", "rose", "rosa", "rosa", "粉色")),
    "brown": ((122, 72, 34), ("brown",), ("Braun", "marron", "marrón", "marrone", "棕色")),
    "black": ((22, 22, 24), ("black",), ("Schwarz", "noir", "negro", "nero", "黑色")),
    "white": ((246, 246, 244), ("white",), ("Weiß", "blanc", "blanco", "bianco", "白色")),
    "grey": ((132, 134, 138), ("grey", "gray"), ("Grau", "gris", "gris", "grigio", "灰色")),
    "turquoise": ((44, 196, 196), ("turquoise", "teal"), ("Türkis", "turquoise", "turquesa", "turchese", "青色")),
}

TEXTURES: dict[str, tuple[str, ...]] = {
    "plain": ("",),
    "striped": ("striped",),
    "dotted": ("dotted", "spotted", "polka-dot"),
    "checkered": ("checkered", "chequered"),
    "outlined": ("outlined", "hollow"),
}

SIZES: dict[str, tuple[str, ...]] = {"small": ("small", "little"), "medium": ("",), "large": ("large", "big")}

COUNTS = {1: ("a",), 2: ("two", "2", "a pair of"), 3: ("three", "3"), 4: ("four", "4"), 5: ("five", "5"), 6: ("six",)}

# background -> English phrases ("" + preposition included), de fr es it zh; a plain one is a colour's name
PLACES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "night": (
        ("in the night sky", "under the stars at night"),
        ("am Nachthimmel", "dans le ciel de nuit", "en el cielo nocturno", "nel cielo notturno", "在夜空中"),
    ),
    "meadow": (
        ("on a green meadow", "on the grass under a blue sky"),
        ("auf einer Wiese", "sur une prairie", "en un prado", "su un prato", "在草地上"),
    ),
    "beach": (
        ("on a sandy beach by the sea", "at the beach"),
        ("am Strand", "sur la plage", "en la playa", "sulla spiaggia", "在沙滩上"),
    ),
    "bricks": (
        ("in front of a brick wall", "on a wall of bricks"),
        ("vor einer Mauer", "devant un mur de briques", "ante un muro de ladrillo", "davanti a un muro", "在砖墙前"),
    ),
    "water": (
        ("on wavy water", "over the waves"),
        ("auf dem Wasser", "sur les vagues", "sobre las olas", "sulle onde", "在水面上"),
    ),
    "snow": (
        ("in the falling snow", "on a snowy day"),
        ("im Schnee", "sous la neige", "bajo la nieve", "sotto la neve", "在雪中"),
    ),
    "sunset": (
        ("at sunset", "in front of a sunset sky"),
        ("bei Sonnenuntergang", "au coucher du soleil", "al atardecer", "al tramonto", "在日落时"),
    ),
    "paper": (
        ("on squared paper", "on a sheet of graph paper"),
        (
            "auf kariertem Papier",
            "sur du papier quadrillé",
            "sobre papel cuadriculado",
            "su carta a quadretti",
            "在方格纸上",
        ),
    ),
    "wood": (
        ("on a wooden table", "on wooden boards"),
        ("auf einem Holztisch", "sur une table en bois", "en una mesa de madera", "su un tavolo di legno", "在木桌上"),
    ),
}

# relation of the first group to the second -> English phrases, de fr es it zh
RELATIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "left": (
        ("to the left of", "left of"),
        ("links von", "à gauche de", "a la izquierda de", "a sinistra di", "左边是"),
    ),
    "right": (
        ("to the right of", "right of"),
        ("rechts von", "à droite de", "a la derecha de", "a destra di", "右边是"),
    ),
    "above": (("above", "over"), ("über", "au-dessus de", "encima de", "sopra", "上面是")),
    "below": (("below", "under"), ("unter", "en dessous de", "debajo de", "sotto", "下面是")),
}

# shape -> English singular, plural and synonym, then "singular/plural" in de fr es it, and zh
NOUNS: dict[str, tuple[str, ...]] = {
    "circle": ("circles", "disc", "Kreis/Kreise", "cercle/cercles", "círculo/círculos", "cerchio/cerchi", "圆圈"),
    "square": ("squares", "", "Quadrat/Quadrate", "carré/carrés", "cuadrado/cuadrados", "quadrato/quadrati", "正方形"),
    "triangle": (
        "triangles",
        "",
        "Dreieck/Dreiecke",
        "triangle/triangles",
        "triángulo/triángulos",
        "triangolo/triangoli",
        "三角形",
    ),
    "star": ("stars", "", "Stern/Sterne", "étoile/étoiles", "estrella/estrellas", "stella/stelle", "星星"),
    "hexagon": (
        "hexagons",
        "",
        "Sechseck/Sechsecke",
        "hexagone/hexagones",
        "hexágono/hexágonos",
        "esagono/esagoni",
        "六边形",
    ),
    "diamond": ("diamonds", "rhombus", "Raute/Rauten", "losange/losanges", "rombo/rombos", "rombo/rombi", "菱形"),
    "cross": ("crosses", "plus sign", "Kreuz/Kreuze", "croix/croix", "cruz/cruces", "croce/croci", "十字"),
    "heart": ("hearts", "", "Herz/Herzen", "cœur/cœurs", "corazón/corazones", "cuore/cuori", "心形"),
    "arrow": ("arrows", "", "Pfeil/Pfeile", "flèche/flèches", "flecha/flechas", "freccia/frecce", "箭头"),
    "moon": ("moons", "crescent", "Mond/Monde", "lune/lunes", "luna/lunas", "luna/lune", "月亮"),
    "ring": ("rings", "", "Ring/Ringe", "anneau/anneaux", "anillo/anillos", "anello/anelli", "圆环"),
    "house": ("houses", "", "Haus/Häuser", "maison/maisons", "casa/casas", "casa/case", "房子"),
    "tree": ("trees", "fir tree", "Baum/Bäume", "arbre/arbres", "árbol/árboles", "albero/alberi", "树"),
    "fish": ("fish", "", "Fisch/Fische", "poisson/poissons", "pez/peces", "pesce/pesci", "鱼"),
    "flower": ("flowers", "blossom", "Blume/Blumen", "fleur/fleurs", "flor/flores", "fiore/fiori", "花"),
    "cloud": ("clouds", "", "Wolke/Wolken", "nuage/nuages", "nube/nubes", "nuvola/nuvole", "云"),
    "boat": ("boats", "sailboat", "Boot/Boote", "bateau/bateaux", "barco/barcos", "barca/barche", "船"),
    "lightning bolt": (
        "lightning bolts",
        "",
        "Blitz/Blitze",
        "éclair/éclairs",
        "rayo/rayos",
        "fulmine/fulmini",
        "闪电",
    ),
    "cup": ("cups", "mug", "Tasse/Tassen", "tasse/tasses", "taza/tazas", "tazza/tazze", "杯子"),
    "key": ("keys", "", "Schlüssel/Schlüssel", "clé/clés", "llave/llaves", "chiave/chiavi", "钥匙"),
    "flag": ("flags", "banner", "Fahne/Fahnen", "drapeau/drapeaux", "bandera/banderas", "bandiera/bandiere", "旗子"),
    "mushroom": (
        "mushrooms",
        "toadstool",
        "Pilz/Pilze",
        "champignon/champignons",
        "seta/setas",
        "fungo/funghi",
        "蘑菇",
    ),
    "car": ("cars", "", "Auto/Autos", "voiture/voitures", "coche/coches", "macchina/macchine", "汽车"),
    "bell": ("bells", "", "Glocke/Glocken", "cloche/cloches", "campana/campanas", "campana/campane", "铃铛"),
    "drop": ("drops", "droplet", "Tropfen/Tropfen", "goutte/gouttes", "gota/gotas", "goccia/gocce", "水滴"),
    "hourglass": (
        "hourglasses",
        "",
        "Sanduhr/Sanduhren",
        "sablier/sabliers",
        "reloj de arena/relojes de arena",
        "clessidra/clessidre",
        "沙漏",
    ),
    "crown": ("crowns", "", "Krone/Kronen", "couronne/couronnes", "corona/coronas", "corona/corone", "皇冠"),
    "snowman": (
        "snowmen",
        "",
        "Schneemann/Schneemänner",
        "bonhomme de neige/bonshommes de neige",
        "muñeco de nieve/muñecos de nieve",
        "pupazzo di neve/pupazzi di neve",
        "雪人",
    ),
    "balloon": ("balloons", "", "Ballon/Ballons", "ballon/ballons", "globo/globos", "palloncino/palloncini", "气球"),
    "sun": ("suns", "", "Sonne/Sonnen", "soleil/soleils", "sol/soles", "sole/soli", "太阳"),
    "butterfly": (
        "butterflies",
        "",
        "Schmetterling/Schmetterlinge",
        "papillon/papillons",
        "mariposa/mariposas",
        "farfalla/farfalle",
        "蝴蝶",
    ),
    "umbrella": (
        "umbrellas",
        "",
        "Regenschirm/Regenschirme",
        "parapluie/parapluies",
        "paraguas/paraguas",
        "ombrello/ombrelli",
        "雨伞",
    ),
    "rocket": ("rockets", "spaceship", "Rakete/Raketen", "fusée/fusées", "cohete/cohetes", "razzo/razzi", "火箭"),
    "bottle": (
        "bottles",
        "",
        "Flasche/Flaschen",
        "bouteille/bouteilles",
        "botella/botellas",
        "bottiglia/bottiglie",
        "瓶子",
    ),
    "hat": ("hats", "top hat", "Hut/Hüte", "chapeau/chapeaux", "sombrero/sombreros", "cappello/cappelli", "帽子"),
    "cat": ("cats", "kitten", "Katze/Katzen", "chat/chats", "gato/gatos", "gatto/gatti", "猫"),
}

LANGUAGES = ("de", "fr", "es", "it", "zh")

NUMBERS: dict[str, tuple[str, ...]] = {
    "de": ("ein Mal", "zwei", "drei", "vier", "fünf", "sechs"),
    "fr": ("une fois", "deux", "trois", "quatre", "cinq", "six"),
    "es": ("solo", "dos", "tres", "cuatro", "cinco", "seis"),
    "it": ("solo", "due", "tre", "quattro", "cinque", "sei"),
    "zh": ("一个", "两个", "三个", "四个", "五个", "六个"),
}
