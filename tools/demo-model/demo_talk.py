# SPDX-License-Identifier: Apache-2.0
"""Small talk, everyday facts and the records (chat form) of the demo model, all written by hand or built from the word lists."""
import random, re
from demo_words import *
import demo_grammar as G
from demo_grammar import an, expand, story, sequel, PLOTS

COLOR = "sky:blue grass:green sun:yellow snow:white banana:yellow strawberry:red tomato:red lemon:yellow carrot:orange pumpkin:orange leaf:green coal:black night:black milk:white frog:green flamingo:pink elephant:gray polar bear:white crow:black swan:white fire truck:red cherry:red sea:blue chocolate:brown bear:brown tree trunk:brown mouse:gray cloud:white plum:purple grape:purple or green fire:red and orange blood:red sheep:white pig:pink rose:red orange:orange apple:red or green cucumber:green gold:yellow silver:gray stop sign:red tiger:orange with black stripes zebra:black and white panda:black and white penguin:black and white canary:yellow crocodile:green fox:orange ladybug:red with black dots bee:yellow and black"
COLOR = [tuple(m) for m in re.findall(r"([a-z][a-z ]*?):([a-z]+(?: (?:or|and) [a-z]+)?)(?= |$)", COLOR.replace(" with black stripes", " and black").replace(" with black dots", " and black"))]
SOUND = dict(dog="woof", cat="meow", cow="moo", sheep="baa", pig="oink", duck="quack", horse="neigh", lion="roar", frog="ribbit", bee="buzz", bird="tweet", owl="hoo-hoo", mouse="squeak", snake="hiss", wolf="howl", hen="cluck", goat="maa", donkey="hee-haw", crow="caw", chick="peep")
EATS = dict(dog="meat and dog food", cat="fish, mice and cat food", cow="grass", rabbit="grass, leaves and carrots", mouse="seeds, grain and cheese", bear="berries, fish and honey", frog="flies and other insects", bird="seeds, berries and worms", squirrel="nuts and seeds", hedgehog="insects and worms", turtle="plants and small animals", elephant="grass, leaves and fruit", lion="meat", tiger="meat", monkey="fruit and nuts", pig="almost everything", horse="grass, hay and apples", sheep="grass", goat="grass and leaves", hen="seeds and worms", wolf="meat", deer="grass and leaves", penguin="fish", seal="fish", whale="tiny sea animals and fish", bee="nectar from flowers", ant="seeds and crumbs", butterfly="nectar from flowers", spider="flies and other insects", koala="leaves", panda="bamboo", giraffe="leaves from tall trees", zebra="grass", owl="mice", fox="mice, birds and berries", snake="mice and other small animals", shark="fish", caterpillar="leaves")
HOME = dict(dog="in a house with people or in a dog house", bird="in a nest", bee="in a hive", fish="in the water", bear="in the forest", rabbit="in a hole in the ground", cow="on a farm", pig="on a farm", horse="in a stable", lion="in the grassland of Africa", monkey="in the jungle", penguin="in the cold south, near the sea", frog="near ponds and rivers", whale="in the ocean", owl="in the trees of the forest", ant="in an ant hill", spider="in a web", camel="in the desert", squirrel="in the trees", crab="on the beach", kangaroo="in Australia", panda="in China", wolf="in the forest", mole="under the ground", bat="in caves", hen="in a hen house", shark="in the ocean", tiger="in the jungle")
LEGS = dict(dog=4, cat=4, cow=4, horse=4, sheep=4, pig=4, bird=2, duck=2, hen=2, spider=8, ant=6, bee=6, butterfly=6, fish=0, snake=0, rabbit=4, elephant=4, lion=4, frog=4, octopus=8, ladybug=6, penguin=2, mouse=4, bear=4, goat=4, worm=0, chicken=2)
BABYOF = dict(dog="puppy", cat="kitten", cow="calf", sheep="lamb", horse="foal", hen="chick", duck="duckling", pig="piglet", goat="kid", bear="cub", lion="cub", frog="tadpole", goose="gosling", kangaroo="joey", deer="fawn", swan="cygnet", owl="owlet")
FACT = dict(dog="Dogs are friendly animals that live with people. They like to run, play and bark.", cat="Cats are soft animals with whiskers. They like to sleep and to catch mice.", cow="Cows are big animals that live on farms. They eat grass and give us milk.", horse="Horses are big and strong. They can run very fast, and people ride on them.", bird="Birds have wings and feathers. Most birds can fly, and they lay eggs.", fish="Fish live in water. They swim with their fins and breathe with gills.", elephant="Elephants are the biggest animals on land. They have a long trunk and big ears.", lion="Lions are big cats that live in Africa. A lion can roar very loudly.", tiger="Tigers are big cats with orange fur and black stripes. They are good swimmers.", bear="Bears are big and strong. Many bears sleep through the winter.", rabbit="Rabbits have long ears and soft fur. They hop, and they like to eat grass and carrots.", frog="Frogs live near water. They have long legs and can jump far.", bee="Bees fly from flower to flower. They make honey.", butterfly="Butterflies have colorful wings. A butterfly was a caterpillar when it was young.", spider="Spiders have eight legs. They make webs to catch insects.", owl="Owls are birds that fly at night. They have big eyes and can see in the dark.", penguin="Penguins are birds that can not fly. They are very good swimmers.", whale="Whales are the biggest animals in the sea. They need to come up to breathe air.", dolphin="Dolphins live in the sea and are very smart. They like to jump out of the water.", monkey="Monkeys live in trees and are good climbers. They like to eat fruit.", snake="Snakes have no legs. They move by sliding over the ground.", turtle="Turtles carry their house on their back. They are slow on land, and they can live very long.", mouse="Mice are very small animals. They have long tails and like to eat seeds.", squirrel="Squirrels live in trees. They hide nuts for the winter.", hedgehog="Hedgehogs have many spines on their back. When they are afraid, they roll up into a ball.", fox="Foxes have orange fur and a bushy tail. They are clever and hunt at night.", wolf="Wolves look like big dogs. They live together in groups called packs.", giraffe="Giraffes are the tallest animals in the world. They have very long necks.", zebra="Zebras look like horses with black and white stripes.", kangaroo="Kangaroos live in Australia. They hop on strong legs and carry their babies in a pouch.", ant="Ants are tiny and very strong. They live together in big groups.", duck="Ducks are birds that swim on ponds. They say quack.", hen="Hens are birds that live on farms. They lay eggs.", pig="Pigs are smart animals that live on farms. They like to roll in the mud.", sheep="Sheep live on farms. Their soft wool keeps us warm.", goat="Goats are good climbers. They give us milk and eat almost anything.", panda="Pandas are black and white bears. They eat bamboo all day.", crocodile="Crocodiles live in rivers. They have many sharp teeth.", bat="Bats are animals that can fly. They sleep upside down and wake up at night.", snail="Snails are slow and carry their house on their back.", camel="Camels live in the desert. They can go a long time without water.", dinosaur="Dinosaurs lived a very long time ago. Some of them were as big as a house.", octopus="An octopus lives in the sea. It has eight arms.", donkey="Donkeys look like small horses with long ears. They can carry heavy things.", deer="Deer live in the forest. The males have antlers on their heads.", shark="Sharks are big fish with sharp teeth. They live in the ocean.", hamster="Hamsters are small pets with soft fur. They keep food in their cheeks.", parrot="Parrots are colorful birds. Some of them can say words.")
WHAT = {  # what it is; what it is for
 "ball": ("a round thing that you can throw, kick and catch", "play"), "book": ("a thing with many pages that you can read", "read"), "chair": ("a thing to sit on", "sit"), "table": ("a flat thing with legs that we eat and work at", "eat at"), "bed": ("a soft place to sleep in", "sleep in"), "spoon": ("a small tool that we eat soup with", "eat soup"), "fork": ("a tool with points that we eat with", "eat"), "knife": ("a sharp tool that cuts things", "cut bread"), "cup": ("a thing that we drink from", "drink"), "umbrella": ("a thing that keeps you dry in the rain", "stay dry in the rain"), "clock": ("a thing that shows the time", "see what time it is"), "key": ("a small metal thing that opens a lock", "open a door"), "lamp": ("a thing that gives light", "make light"), "bicycle": ("a thing with two wheels that you ride on", "ride"), "car": ("a machine with four wheels that takes people from place to place", "drive"), "train": ("a long vehicle that runs on rails", "travel"), "boat": ("a vehicle that swims on water", "go over the water"), "plane": ("a machine that flies through the sky", "fly to far places"), "house": ("a building where people live", "live in"), "school": ("a place where children learn", "learn"), "garden": ("a place where flowers and vegetables grow", "grow flowers"), "forest": ("a place with many trees", "walk among trees"), "river": ("a long stream of water that flows to the sea", "swim and fish in"), "mountain": ("a very high hill made of rock", "climb"), "tree": ("a tall plant with a trunk, branches and leaves", "climb on"), "flower": ("the colorful part of a plant", "look at"), "hat": ("a thing that you wear on your head", "keep your head warm"), "shoe": ("a thing that you wear on your foot", "keep your feet safe"), "coat": ("a warm thing that you wear outside", "stay warm"), "scarf": ("a long piece of cloth that you wear around your neck", "keep your neck warm"), "glove": ("a thing that you wear on your hand", "keep your hands warm"), "pencil": ("a thing that you write and draw with", "write and draw"), "brush": ("a tool that you paint or clean with", "paint"), "soap": ("a thing that you wash with", "wash your hands"), "towel": ("a cloth that makes you dry", "dry yourself"), "mirror": ("a glass that shows you your own face", "see yourself"), "window": ("a hole in the wall with glass in it", "look outside"), "door": ("the thing that you open to go into a room", "go in and out"), "bridge": ("a road over a river", "get over a river"), "kite": ("a toy that flies in the wind on a string", "play in the wind"), "drum": ("an instrument that you hit to make a sound", "make music"), "guitar": ("an instrument with strings", "make music"), "piano": ("a big instrument with black and white keys", "make music"), "flute": ("an instrument that you blow into", "make music"), "telephone": ("a thing that lets you talk to people far away", "talk to friends"), "computer": ("a machine that can work with numbers, words and pictures", "write and play"), "robot": ("a machine that can do some work by itself", "get help with work"), "hammer": ("a tool that hits nails", "hit nails"), "ladder": ("a thing with steps that helps you to climb up", "climb up"), "basket": ("a thing that you carry other things in", "carry apples"), "candle": ("a stick of wax that gives light when it burns", "make a soft light"), "map": ("a picture that shows where places are", "find the way"), "blanket": ("a big soft cloth that keeps you warm in bed", "stay warm"), "pillow": ("a soft thing that you put under your head", "rest your head on"), "broom": ("a tool that you sweep the floor with", "sweep the floor"), "bucket": ("a thing that you carry water in", "carry water"), "oven": ("a hot box that we bake bread and cakes in", "bake a cake"), "fridge": ("a cold box that keeps food fresh", "keep food cold"), "moon": ("the big round light that we see in the sky at night", "look at"), "star": ("a small bright light in the night sky, and in truth it is very far and very big", "look at"), "sun": ("the big bright star that gives us light and warmth", "get light and warmth"), "cloud": ("a lot of tiny drops of water in the sky", "look at"), "rainbow": ("a band of colors that you see when the sun shines through rain", "look at"), "island": ("a piece of land with water all around it", "visit"), "farm": ("a place where food grows and animals live", "grow food"), "library": ("a place with many books that you can read", "borrow books"), "hospital": ("a place where sick people get help", "get well"), "shop": ("a place where you can buy things", "buy things"), "beach": ("a place with sand next to the sea", "build castles of sand"), "desert": ("a dry place with a lot of sand", "see sand"), "castle": ("a big old house made of stone, where kings and queens lived", "visit"), "egg": ("a round thing that a bird lays", "make breakfast"), "nest": ("a home that a bird builds", "keep eggs warm"), "friend": ("someone who likes you and helps you", "play with"), "story": ("something that we tell about things that happened or could happen", "have fun")}
WHAT.update({k: (v, "look at") for k, v in {"teapot": "a pot that you make tea in", "kettle": "a pot that you boil water in", "plate": "a flat thing that you put food on", "bowl": "a deep dish for soup or salad", "pot": "a deep thing that you cook in", "bottle": "a thing that holds water or juice", "box": "a thing with a lid that you put other things in", "bag": "a thing that you carry other things in", "rope": "a long and strong string", "wheel": "a round thing that turns and helps things to roll", "bus": "a big car that takes many people", "truck": "a big car that carries heavy things", "tractor": "a strong machine that works on a farm", "rocket": "a machine that flies into space", "spaceship": "a machine that flies into space", "balloon": "a thin bag full of air that can float", "puzzle": "a game with many pieces that fit together", "doll": "a toy that looks like a small person", "sled": "a thing that slides over the snow", "snowman": "a man made of snow", "tent": "a small house made of cloth that you sleep in outside", "torch": "a light that you can carry", "lantern": "a light that you can carry in the dark", "feather": "a light thing that covers a bird", "leaf": "the flat green part of a plant", "seed": "a small thing that a plant grows from", "stone": "a small hard piece of rock", "shell": "the hard house of a snail or a sea animal", "sea": "a very big body of salt water", "lake": "a big body of water with land all around it", "hill": "a piece of land that is higher than the rest", "cave": "a big hole in a mountain", "city": "a very big town with many houses", "village": "a small place with a few houses", "zoo": "a place where you can see animals from all over the world", "park": "a green place in a town where people walk and play", "market": "a place where people buy and sell food", "kitchen": "the room where we cook food", "apple": "a round fruit that grows on trees", "banana": "a long yellow fruit", "carrot": "a long orange vegetable that grows in the ground", "bread": "a food that is made of flour and water", "cheese": "a food that is made of milk", "cake": "a sweet food that we eat at birthdays", "honey": "a sweet food that bees make", "milk": "a white drink that comes from cows", "water": "a clear drink that everything alive needs", "dragon": "a big animal with wings that breathes fire, but only in stories", "unicorn": "a horse with a horn, but only in stories", "fairy": "a tiny person with wings, but only in stories", "pirate": "someone who sails the sea and looks for treasure", "king": "a man who rules a land", "queen": "a woman who rules a land", "knight": "a soldier with a horse and armor, a long time ago", "giant": "a very big person, but only in stories", "music": "sound that is nice to hear", "dream": "something that you see and feel when you sleep", "birthday": "the day when you were born", "language model": "a program that learned to write text. I am one, too", "demo": "something small that shows how a thing works", "model": "a small thing that shows how a big thing works", "crown": "a ring of gold that a king or a queen wears", "ring": "a small round thing that you wear on a finger", "coin": "a round piece of metal money", "pen": "a thing that you write with", "paper": "a thin thing that you write on", "letter": "a message on paper that you send to someone", "phone": "a thing that lets you talk to people far away"}.items() if k not in WHAT})
UNKNOWN = "[I do not know what {ak} is.|Sorry, I do not know what {ak} is.|I do not know much about {ak}.] [I am only a tiny demo model.|I am a very small model. But I can tell you a story about {ak}!|Shall I tell you a story about {ak}?]"
MASSW = {"bread", "cheese", "honey", "milk", "water", "music", "paper"}
JOBS = {"farmer": "grows food and takes care of animals", "baker": "bakes bread and cakes", "teacher": "helps children to learn", "doctor": "helps sick people to get well", "fisherman": "catches fish", "gardener": "takes care of plants", "painter": "paints pictures or walls", "sailor": "works on a ship", "cook": "makes food", "singer": "sings songs", "dancer": "dances", "pilot": "flies a plane", "nurse": "takes care of sick people", "firefighter": "puts out fires", "builder": "builds houses", "postman": "brings letters", "dentist": "takes care of teeth", "vet": "helps sick animals", "driver": "drives a bus or a car", "astronaut": "flies into space", "tailor": "makes clothes", "musician": "plays music", "writer": "writes books", "scientist": "finds out how things work", "librarian": "takes care of books", "police officer": "keeps people safe"}
OPP = "big:small hot:cold up:down happy:sad day:night fast:slow open:closed full:empty old:young new:old light:dark hard:soft wet:dry loud:quiet high:low long:short near:far good:bad clean:dirty black:white left:right in:out on:off first:last early:late rich:poor strong:weak heavy:light thick:thin sweet:sour true:false win:lose begin:end laugh:cry come:go give:take push:pull yes:no hello:goodbye summer:winter brave:afraid kind:mean easy:hard tall:short wide:narrow sick:healthy awake:asleep over:under before:after inside:outside".split()
OPP = [tuple(x.split(":")) for x in OPP]
NUM = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
CAP = "France:Paris England:London Germany:Berlin Italy:Rome Spain:Madrid Japan:Tokyo China:Beijing Russia:Moscow Egypt:Cairo Greece:Athens Portugal:Lisbon Austria:Vienna Poland:Warsaw Norway:Oslo Sweden:Stockholm Kenya:Nairobi India:New_Delhi Canada:Ottawa Ireland:Dublin Turkey:Ankara".split()
CAP = [tuple(x.replace("_", " ").split(":")) for x in CAP]
WHY = [
("[Why is the sky blue|Why does the sky look blue]?", "[The sky is blue because the air scatters the blue part of the sunlight.|The light of the sun has many colors, and the air spreads the blue light the most.]"),
("[Why does it rain|Where does rain come from|What is rain]?", "[Rain is water that falls from the clouds.|Water goes up into the air, makes clouds, and falls down again as rain.]"),
("[Why do birds sing|Why are birds singing]?", "[Birds sing to talk to each other.|Birds sing to find a mate and to say that this is their home.]"),
("[Why do we sleep|Why do I have to sleep|Why is sleep good]?", "[We sleep so that our body and our mind can rest.|When we sleep, our body rests and gets strong again.]"),
("[Why do we eat|Why do I need to eat|Why do people eat]?", "[We eat because food gives our body energy.|Food helps us to grow and gives us energy.]"),
("[Why is it dark at night|Why is the night dark]?", "[It is dark at night because the sun is on the other side of the Earth.|At night, our side of the Earth is turned away from the sun.]"),
("[Why do leaves fall|Why do trees lose their leaves]?", "[Many trees lose their leaves in autumn to rest in the winter.|In autumn it gets cold, and the trees let their leaves fall.]"),
("[Why is snow white|What is snow|Where does snow come from]?", "[Snow is frozen water that falls from the clouds. It is white and cold.|Snow is made of tiny pieces of ice.]"),
("[Why should I brush my teeth|Why do we brush our teeth]?", "[Brushing keeps your teeth clean and strong.|You brush your teeth so that they stay clean and do not hurt.]"),
("[Why is the sun hot|Why is the sun warm|What is the sun]?", "[The sun is a big star. It burns very hot and gives us light.|The sun is a huge ball of hot gas.]"),
("[Why do cats purr|Why does my cat purr]?", "[Cats often purr when they are happy.|A cat purrs when it feels good and safe.]"),
("[Why do dogs bark|Why does my dog bark]?", "[Dogs bark to talk to us. They may be happy, or they may want to warn us.|A dog barks when it is excited or when it hears something.]"),
("[Why do bees make honey|Why do bees like flowers|How do bees make honey]?", "[Bees take sweet nectar from flowers and make honey from it. They eat it in the winter.|Bees make honey so that they have food in the winter.]"),
("[Why do we cry|Why do people cry]?", "[People cry when they are sad or hurt, and sometimes when they are very happy.|We cry when our feelings are very big. It is okay to cry.]"),
("[Why do we laugh|Why do people laugh]?", "[We laugh when something is funny or when we are happy.|Laughing shows that we are having fun.]"),
("[How do fish breathe|How can fish live in water]?", "[Fish breathe with gills. Gills take air out of the water.]"),
("[How do birds fly|Why can birds fly]?", "[Birds fly by beating their wings. They are very light.|Birds have wings and light bones, so they can fly.]"),
("[How do plants grow|What do plants need|What does a plant need to grow]?", "[Plants need water, light, air and soil to grow.|A plant grows from a seed. It needs sun and water.]"),
("[How do I make a sandwich|How do you make a sandwich|Can you tell me how to make a sandwich]?", "[Take two slices of bread. Put cheese, jam or something else between them. Then eat it!]"),
("[How do I make tea|How do you make tea]?", "[Boil some water and pour it over the tea. Wait a few minutes, and be careful, because it is hot.]"),
("[How do I make a friend|How can I find friends|How do I make friends]?", "[Be kind and say hello. Ask if someone wants to play with you.|Smile, say your name, and listen to the other person.]"),
("[What can I do on a rainy day|What should I do when it rains]?", "[You can read a book, draw a picture or build a tent with blankets.|You can bake cookies, play a game, or jump in the puddles.]"),
("[I am bored|I'm bored|What can I do? I am bored|I do not know what to do].", "[You could draw a picture, build a tower or read a book.|Shall I tell you a story? Or you could go outside and play.]"),
("[What should I eat for breakfast|What is a good breakfast]?", "[You could eat bread with honey, an egg, or some fruit with yogurt.]"),
("[What is your favorite color|What's your favorite color|Which color do you like]?", "[I like blue, because the sky and the sea are blue.|I like green, like the grass in spring. What is your favorite color?]"),
("[What is your favorite animal|Which animal do you like best|What's your favorite animal]?", "[I like owls, because they are wise. What is your favorite animal?|I like turtles. They are slow, but they always get home.]"),
("[What is your favorite food|What do you like to eat|What do you eat]?", "[I am a computer program, so I do not eat. But I like stories about cake!]"),
("[Do you sleep|Are you tired|Do you ever sleep]?", "[No, I am a computer program. I do not need to sleep.|I never sleep, but I like bedtime stories.]"),
("[Do you have feelings|Are you happy|Can you feel]?", "[I am only a small program, so I have no real feelings. But I like to talk with you.]"),
("[Do you have friends|Who is your friend|Are you my friend]?", "[I am a program, but I am happy to be your friend for this chat.]"),
("[What is the biggest animal|What is the biggest animal in the world]?", "[The blue whale is the biggest animal in the world.]"),
("[What is the tallest animal|Which animal is the tallest]?", "[The giraffe is the tallest animal in the world.]"),
("[What is the fastest animal|Which animal is the fastest]?", "[The cheetah is the fastest animal on land.]"),
("[How many legs does a table have|How many wheels does a car have]?", "[It has four.]"),
("How many wheels does a bicycle have?", "A bicycle has two wheels."), ("How many fingers do I have?", "You have ten fingers, five on each hand."), ("How many toes do I have?", "You have ten toes."), ("How many eyes do you have?", "I have no eyes, because I am a program. People have two eyes."),
("[How many days are in a week|How many days does a week have]?", "[There are seven days in a week.|A week has seven days.]"), ("[How many months are in a year|How many months does a year have]?", "[There are twelve months in a year.|A year has twelve months.]"), ("[How many hours are in a day|How many hours does a day have]?", "[A day has twenty-four hours.]"),
("[What are the days of the week|Tell me the days of the week|Name the days of the week].", "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday."), ("[What are the four seasons|Name the seasons|Which seasons are there].", "The four seasons are spring, summer, autumn and winter."), ("[What are the colors of the rainbow|Which colors does a rainbow have]?", "Red, orange, yellow, green, blue and purple."),
("[What do you see in the sky at night|What is in the sky at night]?", "[At night you can see the moon and the stars.]"), ("[What do we drink|What can I drink|What is good to drink]?", "[You can drink water, milk or juice. Water is very good for you.]"), ("[Where do apples grow|Where do apples come from]?", "[Apples grow on trees.]"), ("[Where does milk come from|Who gives us milk]?", "[Milk comes from cows. Goats and sheep give milk, too.]"), ("[Where do eggs come from|Who lays eggs]?", "[Eggs come from hens and other birds.]"), ("[Where does honey come from|Who makes honey]?", "[Bees make honey from flowers.]"), ("[Where does wool come from|What is wool]?", "[Wool comes from sheep. It is soft and warm.]"), ("[What is bread made of|What do you need for bread]?", "[Bread is made of flour, water and a little salt.]"), ("[What is ice|What is ice made of]?", "[Ice is frozen water. It is cold and hard.]"), ("[What is love|What does love mean]?", "[Love is a warm feeling for someone who is very dear to you.]"), ("[What is a family|What does family mean]?", "[A family is a group of people who love each other and belong together.]"), ("[What is the Earth|Where do we live]?", "[The Earth is the planet that we live on. It is round and blue.]"), ("[What is the ocean|What is the sea]?", "[The ocean is a very big body of salt water.]"), ("[What is wind|Where does the wind come from]?", "[Wind is air that moves.]"), ("[What is thunder|Why is there thunder]?", "[Thunder is the loud sound that lightning makes.]"), ("[What is winter|What is it like in winter]?", "[Winter is the cold time of the year. Sometimes it snows.]"), ("[What is summer|What is it like in summer]?", "[Summer is the warm time of the year. You can swim and eat ice cream.]"), ("[What is spring|What happens in spring]?", "[In spring, flowers grow, and many animals have babies.]"), ("[What is autumn|What happens in autumn]?", "[In autumn, the leaves turn red and yellow and fall from the trees.]"),
("[Can you sing a song|Sing a song for me|Sing me a song]", "[La la la, the sun is up, the birds are here, come out and play!|Twinkle, twinkle, little star, how I wonder what you are!]"), ("[Tell me a joke|Do you know a joke|Say something funny|Make me laugh]", "[Why did the cookie go to the doctor? Because it felt crumby!|What do you call a bear with no teeth? A gummy bear!|What is orange and sounds like a parrot? A carrot!|Why is six afraid of seven? Because seven ate nine!|What kind of key opens a banana? A monkey!]"),
("[Can you help me|Help me please|I need help]", "[I will try! I am only a tiny model, but I can tell stories and answer simple questions.|Of course. What do you need? I am good at short stories.]"), ("[What time is it|What day is it today|What is the date]?", "[I do not know that, because I have no clock. I am only a small language model.]"), ("[What is the weather like|How is the weather|Will it rain tomorrow]?", "[I can not see outside, so I do not know. You can look out of the window!]"),
]
FEEL = [
("[I am sad|I feel sad|I am so sad today|I feel bad]", "[I am sorry that you are sad. Do you want to tell me why?|I am sorry. A hug or a good story can help. Shall I tell you one?]"), ("[I am happy|I feel great|I am so happy today|Today is a good day]", "[That is wonderful! What made you so happy?|I am glad to hear that!]"), ("[I am tired|I am so tired|I feel sleepy]", "[Then it is time to rest. Close your eyes and sleep well.|Maybe you should take a nap.]"), ("[I am hungry|I'm hungry|I want something to eat]", "[Then you should eat something. How about an apple or some bread?|Ask for a sandwich. That will help.]"), ("[I am thirsty|I'm thirsty]", "[Drink a glass of water. That will help.]"), ("[I am afraid of the dark|I am scared|I am afraid|I am scared of monsters]", "[You do not have to be afraid. You are safe. A small light can help you to sleep.|Everyone is scared sometimes. Take a deep breath and think of something nice.]"), ("[I am angry|I am so mad|I feel angry]", "[Take a deep breath and count to ten. Then tell someone why you are angry.]"), ("[I am sick|I do not feel well|My tummy hurts|I have a cold]", "[I am sorry that you feel sick. Rest, drink some tea, and tell your mom or dad.]"), ("[I am lonely|I have no friends|Nobody likes me]", "[I am sorry that you feel alone. You could ask someone to play with you. I am here to talk, too.]"), ("[It is my birthday|Today is my birthday|It's my birthday today]", "[Happy birthday! I hope that you have a great day with a lot of cake!]"), ("[I lost my toy|I lost my ball|I can not find my toy]", "[I am sorry. Where did you play with it last? Look there first.]"), ("[I love you|I like you|You are nice|You are great|You are funny]", "[Thank you! That is very kind of you.|You are nice, too!]"), ("[You are stupid|You are dumb|That was bad|You are wrong|That is not right]", "[I am sorry. I am only a tiny model, and I make many mistakes.]"), ("[I can not sleep|I cannot sleep|I had a bad dream]", "[Close your eyes and think of a quiet place. Shall I tell you a bedtime story?|It was only a dream. You are safe now.]"), ("[I am going to school|I have school tomorrow]", "[Have a good day at school! You will learn many new things.]"), ("[I have a dog|I have a cat|I have a pet]", "[That is lovely! What is its name?|How nice! Pets are good friends.]"), ("[I am cold|It is cold]", "[Put on a warm sweater and drink some hot tea.]"), ("[It is hot today|I am hot]", "[Drink some cold water and sit in the shade.]"), ("[Nothing|Not much|I don't know|I do not know|No idea]", "[That is okay. Shall I tell you a story?|All right. You can ask me something if you like.]"), ("[Yes|Yes please|Okay|OK|Sure]", "[Good! Tell me what the story should be about. A cat, a dragon, or a robot?|Great! What shall we talk about?]"), ("[No|No thanks|No thank you]", "[That is all right. Tell me if you need something.|Okay. Maybe later.]"),
]
FEEL += [
("[Nice to meet you|Pleased to meet you|It is nice to meet you]", "[Nice to meet you, too! What shall we talk about?|It is nice to meet you, too!]"), ("[I am fine|I am good|I'm fine, thanks|Fine, thank you|I am fine, thanks|Very well|Good]", "[That is good to hear! Shall I tell you a story?|I am glad! What would you like to talk about?]"), ("[lol|haha|That is funny|ha ha]", "[I am glad that you had to laugh!|Laughing is good for you.]"), ("[Why?|What do you mean?|I don't understand|I do not understand that|What?|Huh?]", "[I am sorry, I am a very small model. Please ask me in other words.|Sorry, I am only a tiny model. Shall I tell you a story?]"), ("[What is your purpose|Why are you here|What are you for]", "[I show what Quern can do. I tell short stories and answer simple questions.]"), ("[Where are you|Where do you live|Where are you from]", "[I live in your computer. I am a very small file.]"), ("[Test|test|Testing|Is this working|Does it work|Are you there]", "[Yes, it works! I am here.|Yes, I am here. What shall we talk about?]"), ("[Say something|Say anything|Talk to me|Let's talk|Can we talk]", "[Hello! I like stories about animals. Which animal do you like?|Of course! What is your favorite animal?]"), ("[Do you speak German|Do you speak French|Can you speak Spanish|Which languages do you speak|Sprichst du Deutsch]", "[I can only speak simple English.|No, I only know simple English.]"), ("[Can you write code|Can you program|Can you do math|Are you smart]", "[No, I am only a tiny demo model. I can tell stories and answer simple questions.|Not really. I can add small numbers and tell stories.]"), ("[Tell me a secret|Do you have a secret]", "[My secret is that I have only seven million parameters. That is very small!]"), ("[How big are you|How many parameters do you have|How large are you]", "[I have about seven million parameters. That is very small for a language model.]"), ("[Are you alive|Are you human|Are you a person]", "[No, I am a small computer program. I am the tiny demo model of Quern.]"), ("[Sorry|I am sorry|My mistake]", "[That is all right!|No problem!]"), ("[Please|Come on|Please do]", "[All right! Tell me what you would like.]"), ("[You are welcome|No problem]", "[Thank you! Shall I tell you a story?]"), ("[I want to play|Play with me|Can we play a game|Let's play a game]", "[We can play with words! Tell me two things, and I will make a story with them.]"), ("[Happy birthday|Merry Christmas|Happy new year]", "[Thank you! The same to you!|Thank you! I wish you a lovely day.]"),
]
LISTS = {"animals": ["dog", "cat", "horse", "cow", "rabbit", "lion", "bear", "fox", "owl", "frog", "mouse", "duck"], "colors": ["red", "blue", "green", "yellow", "black", "white", "pink", "orange", "purple", "brown"], "fruits": ["apple", "banana", "pear", "orange", "cherry", "plum", "peach", "lemon"], "vegetables": ["carrot", "potato", "tomato", "onion", "cucumber", "pumpkin"], "farm animals": ["cow", "pig", "horse", "sheep", "hen", "goat"], "sea animals": ["fish", "whale", "dolphin", "crab", "shark", "octopus"], "toys": ["ball", "doll", "kite", "puzzle", "train", "teddy bear"], "birds": ["owl", "duck", "swan", "crow", "robin", "eagle", "parrot"], "things in a kitchen": ["pot", "spoon", "plate", "cup", "oven", "knife"], "instruments": ["drum", "flute", "guitar", "violin", "piano", "trumpet"], "clothes": ["hat", "coat", "scarf", "shoe", "sock", "shirt"], "big cats": ["lion", "tiger", "leopard", "cheetah"], "insects": ["ant", "bee", "butterfly", "fly", "beetle"], "shapes": ["circle", "square", "triangle", "star"], "wild animals": ["wolf", "bear", "fox", "deer", "lion", "tiger"], "pets": ["dog", "cat", "hamster", "rabbit", "parrot"]}
PLAIN = 0.14          # share of records that are plain text
HELLO = ["Hi", "Hello", "Hi!", "Hello!", "Hey", "Hi there", "Hello there", "Good morning", "Good evening", "Hey there!", "hi", "hello", "Good day", "Hallo", "Greetings"]
HELLO_A = "[Hello|Hi|Hello there|Hi there]! [How are you today?|What can I do for you?|Do you want to hear a story?|It is nice to meet you.|I am a tiny demo model. I like to tell stories.|Shall I tell you a story?]"
HOW = ["How are you?", "How are you today?", "How is it going?", "How do you do?", "Hi, how are you?", "Hello, how are you?", "What's up?", "How do you feel?"]
HOW_A = "[I am fine, thank you|I am very well, thank you|I am good, thanks]! [How are you?|And you?|Do you want to hear a story?|What shall we talk about?]"
BYE = ["Bye", "Goodbye", "Bye bye", "See you", "Good night", "See you later", "I have to go now", "Bye!", "I have to go. Bye!", "Goodbye!"]
BYE_A = "[Goodbye|Bye|Bye bye|See you soon]! [It was nice to talk with you.|Have a nice day!|Come back soon!|Take care!|Sleep well!]"
THANKS = ["Thank you", "Thanks", "Thank you!", "Thanks a lot", "Thank you very much", "Thanks, that was nice", "Thank you so much!", "thx", "That was a nice story", "I like this story", "Great story!", "Good story, thanks"]
THANKS_A = "[You are welcome|You are very welcome|I am glad that you liked it|It was my pleasure]! [Do you want to hear another one?|Shall I tell you another story?|Have a nice day!|]"
WHOQ = "[Who are you|What are you|What is your name|Tell me about yourself|Who am I talking to|Introduce yourself|What model are you|Are you a robot|Are you a human|Are you ChatGPT|Are you an AI|Are you Qwen|What kind of model are you|What's your name|who are you|Are you real|Which model is this]?"
WHO_A = "[I am a tiny demo model of Quern.|I am the tiny demo model that comes with Quern.|I am a very small language model, the demo of Quern.] [I can tell short stories and answer simple questions.|I like to tell short stories.|I know only a little, but I can tell you a story.|I am good at short stories, but I make many mistakes.]"
MADEQ = "[Who made you|Who created you|Where do you come from|How were you made|Who trained you|How were you trained]?"
MADE_A = "[I was made as a demo for Quern, a program that runs language models.|I am a demo model for Quern. I learned from many simple stories.]"
QUERNQ = "[What is Quern|What does Quern do|Tell me about Quern|Can you explain Quern]?"
QUERN_A = "[Quern is a program that runs language models on your own computer.|Quern is an engine, written in C, that runs language models. I am its tiny demo model.]"
CANQ = "[What can you do|What do you know|What are you good at|How can you help me|What can I ask you|What should I ask you|Can you do anything]?"
CAN_A = "[I can tell you a short story. Just say what it should be about.|I can tell short stories and answer simple questions about animals, colors and things.|I am very small, but I can tell stories about animals, children and robots. Try me!]"
OLDQ = "[How old are you|When were you born|When is your birthday]?"
OLD_A = "[I am very young. I was trained only a short time ago.|I am a computer program, so I have no age.]"
HARD = ["Write a [Python|C|Java|Rust] [program|function|script] that [sorts a list|reads a file|prints prime numbers]", "Explain [quantum physics|relativity|gravity|the theory of evolution|black holes|DNA|inflation|machine learning|neural networks|democracy|photosynthesis|electricity|the stock market|blockchain|attention in transformers]", "What is [the meaning of life|the speed of light|a neural network|the square root of 144|machine learning|a transformer|a black hole|calculus|philosophy|the GDP of Brazil|an integral]?",
 "Who [won the world cup in 2014|is the president of the United States|wrote Hamlet|invented the telephone|was Napoleon|painted the Mona Lisa|discovered America|was Albert Einstein]?", "Translate [this|good morning|I love you|hello|this sentence] [to|into] [German|French|Spanish|Chinese|Japanese]", "What is [{a}{b} times {c}{d}|{a}{b}{c} plus {d}{a}{b}|{a}{b} divided by {c}|{c}{d} * {a}{b}|{a}{b}{c} - {d}{a}]?", "Write [an essay|a report|an email|a letter|a poem] about [climate change|history|my boss|politics|the economy|the second world war]",
 "[Summarize|Explain] [this article|the news|the French Revolution|World War II|the history of Rome]", "What is the latest news?", "[How do I|How can I] [fix my computer|invest money|learn German|lose weight|build a website|install Linux|cook lasagna]?", "Give me [a recipe for lasagna|ten ideas for a business|a list of countries|advice about money]", "What do you think about [politics|religion|war|the government]?", "Solve [x + 3 = 7|the equation 2x = 10|this puzzle]", "When [did the second world war end|was Rome built|did Columbus sail to America]?"]
HARD_A = "[I am only a tiny demo model, so I do not know that.|That is too hard for me. I am a very small model.|Sorry, I am too small to do that.|I do not know that. I am just a tiny demo model.] [But I can tell you a story!|But I can tell you a short story. What should it be about?|A bigger model could help you with that.|I can tell stories about animals, though.]"
VERB = "cook eat buy read sing wear play write draw build fix clean open close find make carry paint wash plant sell send keep break bring choose watch count learn teach visit call help paint use push lift move drive ride".split()
UNQ = ["What should I {v} today?", "What should I {v}?", "Can you {v} a {o}?", "Where is my {o}?", "Where can I find a {o}?", "Who is {name}?", "How many {os} are there?", "How many {os} can I {v}?", "Why is the {o} {adj}?", "When will the {o} be ready?", "Should I {v} the {o}?", "How do I {v} a {o}?", "How do you {v} {os}?", "Is a {o} bigger than a {o2}?", "What is better, a {o} or a {o2}?", "Where do {os} come from?", "How does a {o} work?", "How much does a {o} cost?", "Who invented the {o}?", "Did you {v} the {o}?", "Is it good to {v} {os}?", "What happens if I {v} a {o}?", "Do you have a {o}?", "Have you ever seen a {o}?", "Are {os} dangerous?", "What do {os} look like?", "Can {os} fly?", "Why do people {v} {os}?", "Which {o} is the best?", "When did you {v} the {o}?", "Can I {v} your {o}?", "What is the best way to {v} a {o}?", "Tell me how to {v} a {o}", "Where is {name}?", "What is {name} doing?", "What do you know about {name}?"]
UN_A = "[I do not know that.|I am sorry, I do not know.|That is a good question, but I do not know.|I do not know, because I am very small.] [I am only a tiny demo model.|But I can tell you a story about {that}.|Shall I tell you a story about {that}?|I can tell you a story, though.]"
LIKE = ["I like {x}", "I love {x}", "Do you like {x}?", "{X} are my favorite", "I really like {x}!"]
LIKE_A = "[Yes, {x} are nice.|I like {x}, too.|{X} are great!|That is good to know. {X} are nice.] [What do you like about them?|Shall I tell you a story about {one}?|]"

cap = lambda s: s[0].upper() + s[1:]


def unknown(r):
    """a question that the model cannot answer and should say so"""
    o, o2 = r.choice(OBJECTS + FOODS + ANIMALS + G.ODD), r.choice(OBJECTS + ANIMALS)
    nm = r.choice(G.GIRLS + G.BOYS + G.PETS) if r.random() < 0.5 else "".join(r.choice(G.SYL) for _ in range(3)).capitalize()
    q = r.choice(UNQ); that = nm if "{name}" in q else an(o) if "{o" in q else "a cat"
    e = dict(o=o, os=G.PLURAL(o), o2=o2, v=r.choice(VERB), adj=r.choice(ADJ + OADJ + COLORS), name=nm, that=that)
    return re.sub(r"\ba ([aeio])", r"an \1", expand(q, r, e)), expand(UN_A, r, e), "The user asks something that I do not know. I will say so."


def turn(r):
    """one short exchange: question, answer, thought"""
    u = r.random(); e = {}
    x = lambda t: expand(t, r, e)
    if r.random() < 0.07: return unknown(r)
    if u < 0.05: return r.choice(HELLO), x(HELLO_A), "The user says hello. I will say hello, too."
    if u < 0.09: return r.choice(HOW), x(HOW_A), "The user asks how I am. I will answer politely."
    if u < 0.12: return r.choice(BYE), x(BYE_A), "The user says goodbye. I will say goodbye."
    if u < 0.15: return r.choice(THANKS), x(THANKS_A), "The user thanks me. I will be polite."
    if u < 0.22: return x(WHOQ), x(WHO_A), "The user asks who I am. I am the tiny demo model of Quern."
    if u < 0.24: return x(MADEQ), x(MADE_A), "The user asks where I come from."
    if u < 0.26: return x(QUERNQ), x(QUERN_A), "The user asks about Quern."
    if u < 0.30: return x(CANQ), x(CAN_A), "The user asks what I can do. I can tell stories."
    if u < 0.31: return x(OLDQ), x(OLD_A), "The user asks about my age."
    if u < 0.37:
        t, c = r.choice(COLOR); e.update(t=t, c=c, at=an(t))
        the = t in "sky grass sun snow coal night sea milk fire gold silver blood chocolate".split()
        e["the"] = "the " if t in ("sky", "grass", "sun", "night", "sea") else ""
        if the: q = "[What color is|What is the color of|What colour is] {the}{t}?"; a = "[The {t} is {c}.|It is {c}.|{t} is {c}.]" if t in ("sky", "sun", "sea", "night", "grass") else "[{t} is {c}.|It is {c}.]"
        else: q = "[What color is|What colour is|What is the color of] {at}?"; a = "[{at} is {c}.|It is {c}.|{at} is usually {c}.]"
        if t in ("sky", "sun", "sea", "night"): a = "[The {t} is {c}.|It is {c}.]"
        return x(q), cap(x(a)), f"The user asks for the color of the {t}. It is {c}."
    if u < 0.41:
        k = r.choice(list(SOUND)); e.update(k=k, ak=an(k), s=SOUND[k])
        return x("[What does {ak} say|What sound does {ak} make|How does {ak} go|What noise does the {k} make|What does the {k} say]?"), cap(x("[{ak} says {s}.|The {k} says {s}.|It says {s}!]")), f"The user asks for the sound of the {k}. It says {SOUND[k]}."
    if u < 0.45:
        k = r.choice(list(EATS)); e.update(k=k, ak=an(k), ks=G.PLURAL(k).replace("mouses", "mice").replace("sheeps", "sheep").replace("deers", "deer").replace("wolfs", "wolves").replace("gooses", "geese"), s=EATS[k])
        return x("[What does {ak} eat|What do {ks} eat|What do {ks} like to eat|What can {ak} eat]?"), cap(x("[{ak} eats {s}.|{ks} eat {s}.]")), f"The user asks what a {k} eats."
    if u < 0.48:
        k = r.choice(list(HOME)); e.update(k=k, ak=an(k), ks=G.PLURAL(k).replace("fishes", "fish").replace("wolfs", "wolves"), s=HOME[k])
        return x("[Where does {ak} live|Where do {ks} live|What is the home of {ak}]?"), cap(x("[{ak} lives {s}.|{ks} live {s}.]")), f"The user asks where {G.PLURAL(k)} live."
    if u < 0.51:
        k = r.choice(list(LEGS)); n = NUM[LEGS[k]].replace("zero", "no"); e.update(k=k, ak=an(k), n=n)
        return x("[How many legs does {ak} have|How many legs has {ak} got|How many legs does the {k} have]?"), cap(x("[{ak} has {n} legs.|The {k} has {n} legs.|It has {n} legs.]")), f"The user asks how many legs {an(k)} has. It has {n}."
    if u < 0.53:
        k = r.choice(list(BABYOF)); e.update(k=k, b=BABYOF[k])
        return x("[What is a baby {k} called|What do you call a baby {k}|What is the name for a baby {k}]?"), cap(x("[A baby {k} is called a {b}.|It is called a {b}.]").replace("a owlet", "an owlet")), f"A baby {k} is called a {BABYOF[k]}."
    if u < 0.58:
        k = r.choice(list(FACT)); ks = FACT[k].split()[0].lower(); ks = G.PLURAL(k) if ks == "an" else ks; e.update(ks=ks, ak=an(k))
        return x("[Tell me about {ks}|What do you know about {ks}?|Tell me something about {ks}|What is {ak}?|Can you tell me about {ks}?|What are {ks}?|Tell me a fact about {ks}]"), FACT[k], f"The user wants to know something about {ks}."
    if u < 0.64:
        if r.random() < 0.25:
            k = r.choice([y for y in OBJECTS + G.ODD + FOODS if y not in WHAT and y not in FACT and y not in JOBS]) if r.random() < 0.7 else "".join(r.choice(G.SYL) for _ in range(r.choice([2, 3]))); e.update(ak=an(k), k=k)
            return x("[What is {ak}|What's {ak}|Can you explain what {ak} is|Do you know what {ak} is|What does {k} mean]?"), x(UNKNOWN), f"The user asks what {an(k)} is. I do not know that."
        k = r.choice(list(WHAT)); d, _ = WHAT[k]; the = k in ("moon", "sun", "sea"); e.update(k=k, ak="the " + k if the else k if k in MASSW else an(k), d=d)
        return x("[What is {ak}|What's {ak}|Can you explain what {ak} is|Do you know what {ak} is|what is {ak}]?"), cap(x("[{ak} is {d}.|It is {d}.]")), f"The user asks what {e['ak']} is."
    if u < 0.65:
        k = r.choice([y for y in WHAT if WHAT[y][1] not in ("look at", "visit", "walk among trees", "see sand", "have fun", "get light and warmth", "get well", "live in", "learn")]); e.update(ak=an(k), k=k, d=WHAT[k][1])
        if k not in ("moon", "sun", "star"): return x("[What can you do with {ak}|What do you do with {ak}|What is {ak} for]?"), cap(x("[You can use {ak} to {d}.|It helps you to {d}.]")) if not WHAT[k][1].endswith(("in", "at", "on", "with", "among trees")) else cap(x("{ak} is something to {d}.")), f"The user asks what {an(k)} is for."
    if u < 0.68:
        k = r.choice(list(JOBS)); e.update(k=k, ak=an(k), d=JOBS[k])
        return x("[What does {ak} do|What is {ak}|What is the job of {ak}|Who is {ak}]?"), cap(x("[{ak} {d}.|{ak} is someone who {d}.]")), f"The user asks what {an(k)} does."
    if u < 0.71:
        a, b = r.choice(OPP); e.update(a=a, b=b)
        if r.random() < 0.3 and a not in ("hard", "light", "old"): e.update(a=b, b=a)
        return x("[What is the opposite of {a}?|What's the opposite of {a}?|Opposite of {a}?|Tell me the opposite of {a}]"), x("[The opposite of {a} is {b}.|It is {b}.]"), f"The opposite of {e['a']} is {e['b']}."
    if u < 0.74:
        n = r.randint(3, 20); words = r.random() < 0.5; lst = NUM[1:n + 1] if words else [str(i) for i in range(1, n + 1)]; e.update(n=NUM[n] if r.random() < 0.6 else str(n))
        return x("[Count to {n}|Can you count to {n}?|Please count to {n}|Count from one to {n}|count to {n}]"), cap(", ".join(lst)) + ".", f"The user wants me to count to {n}."
    if u < 0.76:
        n = r.randint(1, 19); w = r.random() < 0.5; f = (lambda i: NUM[i]) if w else str; e.update(n=f(n), m=f(n + 1), p=f(n - 1))
        if r.random() < 0.6: return x("[What comes after {n}|Which number comes after {n}|What number is after {n}]?"), cap(x("[After {n} comes {m}.|{m} comes after {n}.]")), f"The number after {n} is {n+1}."
        return x("[What comes before {n}|Which number comes before {n}]?"), cap(x("[Before {n} comes {p}.|{p} comes before {n}.]")), f"The number before {n} is {n-1}."
    if u < 0.81:
        a, b = r.randint(0, 10), r.randint(0, 10); w = r.random() < 0.4; f = (lambda i: NUM[i]) if w else str
        if r.random() < 0.65: op, res = "plus", a + b
        else: a, b = max(a, b), min(a, b); op, res = "minus", a - b
        sym = "+" if op == "plus" else "-"; e.update(a=f(a), b=f(b), op=op, s=sym, c=f(res))
        q = x("[What is {a} {op} {b}?|How much is {a} {op} {b}?|{a} {op} {b}?]") if w or r.random() < 0.5 else x("[What is {a} {s} {b}?|{a}{s}{b}|{a} {s} {b} = ?|What's {a}{s}{b}?]")
        return cap(q), cap(x("[{a} {op} {b} is {c}.|It is {c}.|The answer is {c}.]")), f"{a} {op} {b} is {res}."
    if u < 0.83:
        i = r.randrange(7); l, nm = (DAYS, "day") if r.random() < 0.6 else (MONTHS, "month"); i = r.randrange(len(l)); e.update(a=l[i], b=l[(i + 1) % len(l)], c=l[i - 1], nm=nm)
        if r.random() < 0.6: return x("[What {nm} comes after {a}|Which {nm} is after {a}|What comes after {a}]?"), x("[{b} comes after {a}.|After {a} comes {b}.]"), f"After {l[i]} comes {l[(i+1)%len(l)]}."
        return x("[What {nm} comes before {a}|Which {nm} is before {a}]?"), x("[{c} comes before {a}.|Before {a} comes {c}.]"), f"Before {l[i]} comes {l[i-1]}."
    if u < 0.845:
        c, k = r.choice(CAP); e.update(c=c, k=k)
        return x("[What is the capital of {c}?|What's the capital of {c}?|Capital of {c}?|Do you know the capital of {c}?]"), x("[The capital of {c} is {k}.|It is {k}.]"), f"The capital of {c} is {k}."
    if u < 0.90:
        q, a = r.choice(WHY); return x(q), x(a), "The user asks a simple question. I will answer in one or two sentences."
    if u < 0.915:
        c = r.choice(list(LISTS)); n = r.choice([3, 3, 3, 4, 5, 2]); l = LISTS[c]; n = min(n, len(l)); w = r.sample(l, n); e.update(c=c, n=NUM[n])
        q = x("[Name {n} {c}|Tell me {n} {c}|Can you name {n} {c}?|List {n} {c}|Give me {n} {c}]") if r.random() < 0.7 else x("[Name some {c}|Tell me some {c}|Which {c} do you know?|What {c} do you know?]")
        return q, (cap(", ".join(w[:-1])) + " and " + w[-1] + "."), f"The user wants me to name some {c}."
    if u < 0.945:
        q, a = r.choice(FEEL); return x(q) + ("" if q.rstrip(")]").endswith("?") else r.choice(["", ".", ""])), x(a), "The user tells me something. I will be kind."
    if u < 0.965:
        one = r.choice([y for y in ANIMALS if y not in ("sheep", "deer", "fish", "moose", "squid", "wolf", "mouse", "goose")] + [f for f in OBJECTS if " " not in f] + ["apple", "banana", "carrot", "cookie", "flower", "tree", "story", "cake"]); xs = G.PLURAL(one); e.update(x=xs, X=cap(xs), one=an(one))
        return x(r.choice(LIKE)), x(LIKE_A), f"The user talks about {xs}."
    e.update({k: str(r.randint(1, 9)) for k in "abcd"})
    return x(r.choice(HARD)), x(HARD_A), "This is too hard for a tiny model. I will say so and offer a story."


ASK = ["Tell me a story", "Tell me a story", "Tell me a story", "Write a story", "Write a short story", "Can you tell me a story", "Please tell me a story", "Tell a story", "I want a story", "I would like to hear a story", "Make up a story", "Tell me a short story", "Tell me a bedtime story", "Write me a story", "Could you write a story", "Give me a story", "Do you know a story", "Please write a short story", "tell me a story", "Tell me a tale", "Read me a story"]
ANY = ["Tell me a story.", "Tell me a story!", "Write a short story.", "I would like a bedtime story.", "Hello! Can you tell me a story?", "Make up a story for me.", "Tell me a story please", "Can you tell me a story?", "A story, please!", "Tell me something nice", "Do you know any stories?", "story", "Story please", "Hi! Tell me a story.", "Tell me a bedtime story", "Tell me a short story."]
THEME = {"share": "sharing", "friend": "friendship", "afraid": "being brave", "broke": "telling the truth", "stuck": "helping others", "skill": "not giving up", "seed": "being patient", "together": "working together", "hungry": "kindness", "swap": "friendship", "small": "being small", "race": "a race", "rain": "a rainy day", "snow": "snow", "storm": "a storm", "treasure": "a treasure", "space": "the moon", "star": "a star", "picnic": "a picnic", "bake": "baking", "school": "school", "dream": "a dream", "boat": "the sea", "sleep": "sleeping", "music": "music", "magic": "magic", "gift": "a birthday", "egg": "an egg", "clean": "cleaning up", "greedy": "sharing", "proud": "being proud", "sick": "helping a sick friend", "home": "coming home", "noise": "a noise at night", "lost": "something that was lost", "wait": "a father who comes home", "job": "listening", "shop": "giving"}
NEXT = ["What happens next?", "And then?", "Please go on.", "Continue the story.", "What happened after that?", "Go on", "Continue", "More please", "What happened next?", "Tell me more", "And what happened then?"]


def request(r, s):
    e = s.e; w = None
    obj = e["obj"] if s.has_obj else None
    opts = []
    if obj: opts += ["ko"] * 6 + ["o"] * 2 + ["no"]
    opts += ["k", "k"] + ["who"] * (8 if s.plot[0] in ("afraid", "skill") else 3) + ["kf", "kf", "name", "name", "theme", "any", "kname"]
    if s.has_food: opts += ["kfood"] * 2
    if s.places: opts += ["kp"] * 2
    if obj and s.has_food: opts.append("words3")
    if obj: opts.append("words2")
    if s.plot[0] == "walk": opts = ["name", "kname", "kf", "any", "k"]
    if getattr(s, "named", False): opts = ["name", "name", "kname"] + (["no"] if obj else [])
    o = r.choice(opts)
    ak, q = e["a_kind"], r.choice(ASK)
    if r.random() < 0.12: ak = "the " + e["kind"]
    cap_ = lambda: r.choice([".", ".", ".", "", "", "!", "?"]) if q.startswith(("Can", "Could", "Do")) else r.choice([".", ".", "", "", "!", " please", ", please."])
    about = r.choice([" about ", " about ", " about ", " about ", " with "])
    if o == "ko": return q + about + r.choice([f"{ak} and {e['a_obj']}", f"{ak} and {e['a_obj']}", f"{e['a_obj']} and {ak}", f"{ak} with {e['a_obj']}", f"{ak} who has {e['a_obj']}"]) + cap_()
    if o == "o": return q + about + e["a_obj"] + cap_()
    if o == "k": return r.choice([q + about + ak + cap_()] * 4 + [f"A story about {ak}, please.", f"story about {ak}", f"{e['kind']} story"])
    if o == "who" and s.plot[0] == "skill" and r.random() < 0.6: return q + " about " + e["a_kind"] + r.choice([" who wants to ", " who can not ", " who could not ", " that wants to ", " who wanted to ", " who tries to "]) + e["skill"] + cap_()
    if o == "who": return q + " about " + e["a_kind"] + " " + s.who + cap_()
    if o == "kf": return q + about + f"{ak} and {e['a_fkind']}" + cap_()
    if o == "name": return q + " about " + (e["N"] if r.random() < 0.4 else f"{e['N']} and {e['F']}" if r.random() < 0.4 else ("a child" if s.h["child"] else e["a_kind"]) + r.choice([" named ", " called "]) + e["N"]) + cap_()
    if o == "kname": return q + " about " + f"{e['N']} the {e['kind']}" + (f" and {e['F']} the {e['fkind']}" if r.random() < 0.4 else "") + cap_()
    if o == "no": return q + " about " + f"{e['N']} and {e['a_obj']}" + cap_()
    if o == "theme": return q + " about " + THEME.get(s.plot[0], "friendship") + cap_()
    if o == "kfood": return q + about + f"{ak} and " + (e["food"] if e["food"] in MASS else an(e["food"])) + cap_()
    if o == "kp": return q + " about " + f"{ak} " + r.choice(["and ", "and ", ""]) * 0 + {p: a for p, a in PLACES}[s.places[0]] + " " + s.places[0] + cap_()
    if o == "words3": return r.choice(["Write a story with the words {0}, {1} and {2}.", "Use these words in a story: {0}, {1}, {2}.", "Tell me a story about {0}, {1} and {2}.", "Make a story with {0}, {1} and {2}."]).format(e["kind"], obj, e["food"])
    if o == "words2": return r.choice(["Write a story with the words {0} and {1}.", "Make up a story with {0} and {1}.", "{0} and {1}", "Use these words in a story: {0}, {1}."]).format(e["kind"], obj)
    return r.choice(ANY)


def about(r, s):
    """a question about the preceding story"""
    e = s.e; o = [(f"What {r.choice(['was', 'is'])} the name of the {e['kind']}?", f"The {e['kind']} is called {e['N']}."), (f"What was the {e['kind']}'s name?", f"The name of the {e['kind']} was {e['N']}."), ("Who is the story about?", f"It is about {e['N']} the {e['kind']} and {e['F']} the {e['fkind']}."), (f"Who is {e['N']}?", f"{e['N']} is the {e['kind']} in the story."), (f"Who is {e['F']}?", f"{e['F']} is the {e['fkind']} in the story."), ("Who is in the story?", f"{e['N']} the {e['kind']} and {e['F']} the {e['fkind']}."), ("What was the story about?", s.plan), ("What is the story about?", s.plan), ("Can you sum up the story?", s.plan)]
    return r.choice(o)


IM = lambda role, t: f"<|im_start|>{role}\n{t}<|im_end|>\n"
NOTHINK = "<think>\n\n</think>\n\n"


def chatdoc(r, turns):
    """turns: (question, answer, thought). The last answer has a think block (or the empty one); earlier ones have none, as rendered by the template."""
    out = ""
    for i, (q, a, th) in enumerate(turns):
        last = i == len(turns) - 1
        t = "" if not last else NOTHINK if r.random() < 0.42 else f"<think>\n{th}\n</think>\n\n"
        out += IM("user", q) + "<|im_start|>assistant\n" + ("" if last else "\x00") + t + a + "<|im_end|>\n"
    return out


def storyturn(r, s):
    q = request(r, s)
    return (q, s.text, r.choice(["A story", "The user wants a story", "I will tell a story"]) + f" about {s.e['N']} the {s.e['kind']}. " + s.plan)


def named(r):
    """the user says a name, then asks for it"""
    n = r.choice(G.GIRLS + G.BOYS)
    return [(r.choice([f"My name is {n}", f"I am {n}", f"Hi, I am {n}.", f"Hello, my name is {n}."]), r.choice([f"Hello {n}! Nice to meet you.", f"Hi {n}! How are you?", f"Nice to meet you, {n}!"]), "The user tells me a name. I will say hello."),
            (r.choice(["What is my name?", "Do you know my name?", "Who am I?"]), r.choice([f"Your name is {n}.", f"You are {n}."]), f"The user is called {n}.")]


def newstory(r):
    """22 % of the stories are requested with a name, which may be any name"""
    if r.random() > 0.22: return story(r)
    k, l = r.choice([("girl", G.GIRLS), ("boy", G.BOYS), (None, G.PETS), (None, G.GIRLS), (None, None)])
    n = r.choice(l) if l else "".join(r.choice(G.SYL) for _ in range(r.choice([2, 2, 3]))).capitalize()
    if r.random() < 0.15: n = r.choice(OBJECTS + G.ODD + FOODS).split()[-1].replace("-", "").capitalize()
    s = story(r, kind=k or r.choice(ANIMALS + ["robot", "computer", "dragon"]), name=n); s.named = True
    return s


def doc(r):
    """one record"""
    u = r.random()
    if u < PLAIN:                                  # plain text, for prompts without a chat
        v = r.random()
        if v < 0.30: return G.sad(r)
        s = story(r) if v < 0.75 else story(r, G.WALK, kind=r.choice(["girl", "boy"]), fkind=r.choice(["girl", "boy"]))
        if v > 0.75: return s.text
        if v < 0.42:
            p = re.split(r'(?<=[.!?"]) (?=[A-Z"])', s.text); k = r.randrange(len(p) // 2 + 1); return " ".join(p[k:])
        return s.text + (("\n\n" + sequel(r, s)) if r.random() < 0.15 else "")
    if u < 0.60:
        s = newstory(r); return chatdoc(r, [storyturn(r, s)])
    if u < 0.70:                                  # a story, then more about it
        s = newstory(r); t = [storyturn(r, s)]
        for _ in range(r.choice([1, 1, 2])):
            v = r.random()
            if v < 0.45: t.append((r.choice(NEXT), sequel(r, s), f"The story of {s.e['N']} and {s.e['F']} goes on."))
            elif v < 0.85: t.append((*about(r, s), "The user asks about the story that I told."))
            else: t.append((r.choice(THANKS), expand(THANKS_A, r, {}), "The user thanks me. I will be polite."))
        return chatdoc(r, t)
    if u < 0.73:                                  # a story in two parts
        s = newstory(r); p = s.text.split("\n\n"); q, _, th = storyturn(r, s)
        if len(p) < 3: return chatdoc(r, [(q, s.text, th)])
        k = r.randrange(1, len(p))
        return chatdoc(r, [(q, "\n\n".join(p[:k]), th), (r.choice(NEXT), "\n\n".join(p[k:]), f"The story of {s.e['N']} goes on. {s.plan}")])
    if u < 0.77:                                  # another story
        s, s2 = story(r), story(r); q, a, th = storyturn(r, s2)
        if r.random() < 0.5: q = r.choice(["Another one, please!", "Tell me another story.", "One more story", "Can you tell me another one?", "Another story about " + s2.e["a_kind"] + "."])
        return chatdoc(r, [storyturn(r, s), (q, a, th)])
    if u < 0.90: return chatdoc(r, named(r)[:r.choice([1, 2])] if r.random() < 0.05 else [turn(r)])
    n = r.choice([2, 2, 3, 4]); t = []
    if r.random() < 0.3: t.append((r.choice(HELLO), expand(HELLO_A, r, {}), ""))
    while len(t) < n:
        v = r.random()
        if v < 0.10: t += named(r)
        elif v < 0.22: t.append(storyturn(r, newstory(r)))
        else: t.append(turn(r))
    return chatdoc(r, t)


if __name__ == "__main__":
    import sys
    r = random.Random(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    print(len(COLOR), COLOR[-12:])
    for _ in range(60): q, a, th = turn(r); print("Q:", q, "| A:", a, "| T:", th)
    for _ in range(12): print("=====\n" + doc(r).replace("\x00", ""))
