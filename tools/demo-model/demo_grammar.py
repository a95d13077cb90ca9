# SPDX-License-Identifier: Apache-2.0
"""Procedural stories in simple English, written for the demo model: about forty plots with many variants of each sentence.

Template language: [a|b|c] chooses (may nest), {x} takes a variable. story(r) gives a Story with text, request, plan and facts for questions.
"""
import re, random
from demo_words import *

_alt = re.compile(r"\[([^\[\]]*)\]")
_cap = re.compile(r'(^|[.!?] |\." |\n)([a-z])')


def expand(t, r, env):
    while True:
        t2 = _alt.sub(lambda m: r.choice(m.group(1).split("|")), t)
        if t2 == t: break
        t = t2
    for _ in range(3):
        if "{" not in t: break
        t = t.format_map(env)
    t = re.sub(r" ([.,!?])", r"\1", re.sub(r" +", " ", t)).replace(" \n", "\n").replace("\n ", "\n").strip()
    return _cap.sub(lambda m: m.group(1) + m.group(2).upper(), t)


def an(w): return ("an " if w[0].lower() in "aeiou" and not w.startswith(("unicorn", "use")) else "a ") + w


PRON = {"f": ("she", "her", "her", "herself"), "m": ("he", "his", "him", "himself")}


def who(r, kind=None, avoid=(), role=0):
    """a character: dict of kind, name, pronouns"""
    u = r.random(); g = r.choice("fm")
    if kind is None:
        if u < 0.55: kind = r.choice(ANIMALS)
        elif u < 0.83: kind = "girl" if g == "f" else "boy"
        elif u < 0.90: kind = r.choice(FANTASY)
        elif u < 0.96: kind = r.choice(ODD)
        else: kind = r.choice(PEOPLE)
    if kind in ("girl", "princess", "queen", "mermaid", "witch", "hen", "cow", "fairy"): g = "f"
    if kind in ("boy", "prince", "king", "fisherman", "postman", "wizard", "snowman"): g = "m"
    human = kind in ("girl", "boy") or kind in PEOPLE or kind in ("princess", "prince", "king", "queen", "knight", "astronaut")
    pool = (GIRLS if g == "f" else BOYS) if human or r.random() < 0.45 else PETS
    n = r.choice([x for x in pool[role::2] if x not in avoid])   # heroes and friends have different names, so that the likeliest ones differ
    if r.random() < 0.12: n = "".join(r.choice(SYL) for _ in range(r.choice([2, 2, 3]))).capitalize()
    return dict(kind=kind, name=n, g=g, child=kind in ("girl", "boy"))


INTRO = """[Once upon a time, there was|Once there was|There once was|One day, there was] {a_adj_kind} named {N}. [{N}|{He}] lived {inlive}.
[Once upon a time,|Long ago,|A long time ago,] {a_adj_kind} [named|called] {N} lived {inlive}.
{N} was {a_adj_kind}. {He} lived {inlive} [with {his} family|with {his} mother|all by {self}|in a small house|in a cozy little home|].
{InLive} lived {a_adj_kind} named {N}.
There was once {a_adj_kind} [named|called] {N} who lived {inlive}.""".split("\n")
INTRO2 = """{N} was {a_adj_kind} who [loved to play|loved to sing|liked to laugh|was always kind to others|loved to explore|had many friends|liked to help].
{N} [loved to play outside|loved sunny days|liked to sing|was always in a good mood|loved to look at the clouds|liked to ask questions].
[Everyone|All the neighbors|All the other animals] liked {N} because {he} was [so kind|so funny|always friendly|good at listening].
Every [day|morning], {N} [went for a walk|looked out of the window|said hello to the sun|went out to play].

""".split("\n")
MEET = """Just then, {a_fkind} named {F} came by.
[At that moment|Then|Soon], {N} met {a_fkind} named {F}.
{A_fkind} named {F} [heard {him}|saw {him}|was sitting nearby] and came over.
Along came {F}, {a_fadj_fkind}.
{He} [ran into|met] {F} the {fkind}.""".split("\n")
ENDS = """From that day on, {N} and {F} were [best friends|good friends|the best of friends].
And from that day on, {N} and {F} [played together every day|were always there for each other|did everything together].
{N} and {F} [laughed|smiled] and [went home together|sat in the sun|hugged each other]. It was a [wonderful|very good|happy|lovely] day.
That night, {N} fell asleep with a [big smile|smile on {his} face].
{N} went to bed [happy|tired but happy] that night, and {he} dreamed of [{F}|tomorrow|the {obj}|all the fun {he} had].
[They all lived happily ever after|And they lived happily ever after].
It was the best day ever.
{N} was the happiest {kind} [in the world|of all].""".split("\n")

# name, who-clause, plan, text. Paragraphs are parted by an empty line. %INTRO %MEET %END are filled from the lists above.
PLOTS = [
("lost", "who lost {his} {obj}", "{N} loses the {obj}, looks for it everywhere, and {F} helps to find it.", """
%INTRO {N} had {a_oadj_obj} and [took it everywhere|loved it very much|played with it every day]. [It was {his} favorite thing in the world.|{He} never went anywhere without it.|]

[One day|One morning|One afternoon], the {obj} was gone! {N} looked [under the bed|behind the door|in the kitchen|under the table]. It was not there. {He} looked [in the garden|behind a bush|near the fence|in the tall grass]. It was not there [either|]. {N} [began to cry|was very sad|felt like crying|sat down and sighed]. "Where is my {obj}?" {he} said.

%MEET "[What is wrong|Why are you so sad|What happened]?" [asked {F}|{F} asked]. "I lost my {obj}," said {N}. "[Do not worry|Don't be sad|Do not cry]," said {F}. "[We will look for it together|I will help you|Let us look for it together]."

They looked and looked. [At last|Finally|Then], {F} [looked|peeked] [under an old log|behind a big rock|inside a basket|under a pile of leaves|up in a tree] and [shouted|called], "[Here it is|I found it|Look, I see it]!" {N} [jumped for joy|clapped and laughed|was so happy]. "Thank you, {F}!" {he} said. [{N} hugged {F}|{N} gave {F} a big hug] and they played with the {obj} together. %END"""),
("share", "who did not want to share {his} {food}", "{N} has {some_food} and learns to share it with {F}.", """
%INTRO [One day|One morning], {N} had {some_food}. It [looked so good|smelled wonderful|was big and tasty]. {He} wanted to eat it all by {self}.

%MEET {F} was [very hungry|so hungry]. "[Can I have a little bit|May I have some|Could I have a small piece], please?" {fhe} asked. "No!" said {N}. "[It is mine|This is all mine]!" {F} [looked sad|was sad] and walked away.

{N} [looked at|sat down with] the {food}. But {he} was not happy [any more|]. It is [not fun|no fun] to eat alone, {he} thought. {He} ran after {F}. "Wait!" {he} [called|shouted]. "I am sorry. [Let us share it|You can have half|Please eat with me]."

{F} [smiled|was so happy]. They sat down [under a tree|in the sun|on the soft grass] and [ate|shared] the {food} together. [It tasted even better that way.|It was the best {food} ever.|] {N} learned that [sharing makes everyone happy|sharing is more fun than keeping everything|good things are better when you share them]. %END"""),
("afraid", "who was afraid of {fear}", "{N} is afraid of {fear}. {F} helps, and {N} becomes brave.", """
%INTRO {N} was [good at many things|a happy {kind}|not afraid of many things], but {he} [had one problem|had a secret]. {He} was afraid of {fear}.

[One day|One evening], {N} [told {his} friend {F} about it|talked about it with {F}, {a_fadj_fkind}|told {F} the {fkind} about it]. "I am [so|always so] scared," {he} said. "[Everyone is scared sometimes|It is okay to be scared|I am scared sometimes, too]," said {F}. "[Hold my hand|Stay close to me|Take a deep breath], and we will be brave together."

{fear_scene}

"[I did it|I am not scared any more|It was not so bad]!" said {N}. {F} [smiled|laughed] and said, "[I knew you could do it|You are very brave|I am proud of you]." {N} [learned that|now knew that] [being brave means to try even when you are scared|a friend makes everything less scary|things are often less scary than they seem]. %END"""),
("friend", "who was lonely and wanted a friend", "{N} is lonely, meets {F}, and they become friends.", """
%INTRO {N} had [many toys|a nice home|a pretty garden], but {he} had no friends. {He} was [lonely|often lonely|very lonely]. "I wish I had [a friend|someone to play with]," {he} [said|thought|sighed].

One day, {N} [went for a walk|walked down the road|sat near the path] and saw {a_fadj_fkind}. "Hello," said {N} [shyly|in a small voice|with a smile]. "[I am|My name is] {N}. What is your name?" "[I am|My name is] {F}," said the {fkind}. "[I have no one to play with|I am new here|I am all alone today]." "[Me too|I am alone, too]!" said {N}. "[Do you want to play with me|Shall we play together]?"

{F} [nodded|said yes|jumped up and down]. They played [hide and seek|catch|with the {obj}|a game] [all afternoon|until the sun went down|for hours]. They [laughed|talked and laughed] and had [so much fun|a lot of fun|a great time]. When it was time to go home, {F} asked, "[Can we play again tomorrow|Will you come back tomorrow]?" "[Yes, of course|Yes, please]!" said {N}.

Now {N} was not lonely any more. {He} had [found a friend|a real friend]. %END"""),
("stuck", "who helped a friend who was stuck", "{F} is stuck and {N} finds a way to help.", """
%INTRO2 One day, {he} heard a [small|weak|sad] voice. "Help! [Please help me|I am stuck|I can not get out]!" {N} ran [to see who it was|toward the voice|as fast as {he} could]. It was {F} the {fkind}. {F} was stuck [in the mud|in a deep hole|between two rocks|in a thick bush].

"[Do not be afraid|Don't worry|Stay calm], I will help you," said {N}. {He} pulled and pulled, but {F} did not move. {N} [thought hard|sat down and thought]. Then {he} had an idea. {He} [ran home and got|went to get|found] [a long rope|a strong stick|a long branch]. "[Hold on tight|Hold on to this]," {he} said. {N} pulled [again|with all {his} might]. One, two, three... Pop! {F} was free.

"Thank you, {N}!" said {F}. "[You saved me|You are so kind|You are a true friend]." To say thank you, {F} gave {N} {a_oadj_obj}. {N} was [very proud|so happy]. [Helping others felt good.|It felt good to help.|] %END"""),
("broke", "who broke {a_obj} and told the truth", "{N} breaks the {obj} of {F}, says sorry, and they fix it.", """
%INTRO {N} had a friend named {F}. {F} was {a_fadj_fkind}. {F} had {a_oadj_obj} and was very proud of it.

One day, {N} [was playing|ran around the house|jumped around the room] [when|and then] - crash! The {obj} fell down and broke. {N} was [scared|very sorry|upset]. "Oh no," {he} [thought|whispered]. "[What will {F} say?|{F} will be angry.]" {N} wanted to [hide|run away]. But then {he} [thought again|took a deep breath]. "[I must tell the truth|I will tell the truth]," {he} said.

{N} went to {F}. "I am so sorry," {he} said. "I broke your {obj}. [It was an accident|I did not mean to]." {F} was [quiet|sad] for a moment. Then {fhe} [smiled|gave {N} a hug]. "[Thank you for telling me the truth|I am glad that you told me]," said {F}. "[We can fix it|Let us fix it together]."

They [got some glue|took some glue and string] and worked [all afternoon|for an hour]. Soon the {obj} looked [almost like new|as good as new|even better than before]. {N} learned that [it is always good to tell the truth|telling the truth is the right thing to do|a good friend can forgive]. %END"""),
("skill", "who wanted to learn to {skill}", "{N} tries to {skill}, fails at first, practices, and can do it in the end.", """
%INTRO {N} had a big wish. {He} wanted to learn to {skill}. "[It looks so easy|I am sure that I can do it|I will try it today]," {he} said.

[The first time|On the first day], {N} tried it {skillplace}. But {he} {fail}. [Some others laughed|Everyone laughed|{N} was sad]. {He} tried again, and {he} {fail} again. "[I can not do it|I will never learn it|It is too hard]," {he} said.

%MEET "[Do not give up|Don't give up]," said {F}. "[I had to practice a lot, too|Nobody can do it on the first day|You only need some practice]. [I will show you how|Let me help you]." So {N} and {F} practiced every day. [Each day|Every day], {N} got a little better.

[One sunny morning|One week later|At last], {N} tried once more. And this time it worked! {N} could {skill}! "[Look at me|I can do it|Hooray]!" {he} [shouted|cried|laughed]. {F} [clapped|cheered|danced with joy]. {N} was proud because {he} [had not given up|had worked so hard]. %END"""),
("home", "who got lost and wanted to go home", "{N} gets lost, {F} shows the way, and {N} comes home safely.", """
%INTRO One day, {N} [followed a butterfly|went for a long walk|ran after {his} {obj}|wanted to see what was behind the hill] and went too far. {He} looked around. [Nothing looked like home|Everything looked strange|{He} did not know this place]. "[Oh no, I am lost|Where am I|I want to go home]!" {N} [cried|said].

It [got dark|grew dark|was late], and {N} was [scared|cold and afraid]. %MEET "[Why are you crying|What are you doing here|Are you lost]?" asked {F}. "I can not find my way home," said {N}. "[I know the way|I can help you|Do not be afraid]," said {F}. "[Just follow me|Come with me|We only have to follow the river]."

They walked [over a bridge|along the river|through the trees|past a big rock] and [up a hill|down a long path|around the lake]. The [moon|stars] [showed them the way|gave them light]. [At last|Soon], {N} saw [a light in a window|{his} own house|a little house with a red roof]. "[That is my home|I see my home]!" {he} [cried|shouted].

{N}'s mother [ran out of the door|was waiting at the door] and [hugged {him}|took {him} in her arms]. "Thank you, {F}," she said. They all had [warm soup|hot milk|bread and honey] together. {N} [promised not to go so far alone again|never went so far alone again]. %END"""),
("gift", "who made a present for a friend", "It is the birthday of {F}. {N} makes {a_obj} as a present.", """
%INTRO Tomorrow was the birthday of {his} friend {F}, {a_fadj_fkind}. {N} wanted to give {F} a present. But {he} had no money. "[What can I do|What can I give {F}]?" {he} [thought|asked {self}].

{N} [looked around|thought for a long time|sat down and thought]. Then {he} had an idea. "I will make {a_obj}!" {he} said. {He} took [some wood and paint|some paper and glue|some old things from the shed] and worked [all day|all night|until it was dark]. It was [not easy|hard work], but [at last|in the end] the {obj} was done. It was {color} and [a little bit crooked|very pretty|as pretty as a picture].

The next day, {N} went to the party. There were [many big presents|a lot of guests|balloons and a cake]. {N} was [shy|a bit worried]. "[Happy birthday, {F}|This is for you, {F}]," {he} said. {F} opened the box. "{A_obj}!" {fhe} cried. "[Did you make it yourself?|It is so beautiful!] [This is the best present of all|I love it]!"

{N} [smiled|was so happy]. {He} learned that [the best presents come from the heart|a present does not have to be big]. They [ate cake|danced|sang songs] and had a [wonderful|great] time. %END"""),
("rain", "on a rainy day", "It rains, {N} is bored, and then {N} and {F} have fun inside.", """
It was a rainy day. {N}, {a_adj_kind}, sat at the window and [sighed|was bored]. "[I wanted to go outside|I want to play outside|Rain is no fun]," {he} said. [Drip, drop, drip, drop went the rain.|The rain fell and fell.|]

[Then there was a knock at the door|Knock, knock|Someone knocked at the door]. It was {F}, {a_fadj_fkind}. {F} was all wet, but {fhe} was smiling. "[I have an idea|Do not be sad]," said {F}. "[We can play inside|Let us make our own fun]!" {F} [had brought|took out] {a_oadj_obj}.

They [built a tent out of blankets|made a house out of boxes|played that the floor was the sea]. They [pretended that the {obj} was a treasure|played with the {obj}|told stories about the {obj}]. They [ate cookies|drank hot chocolate|ate warm pancakes] and [sang songs|laughed a lot]. The time [went by so fast|flew by].

When the rain stopped, [the sun came out|there was a big rainbow in the sky]. They ran outside and jumped in [all the puddles|the puddles]. Splash! "[I like rain now|Rainy days can be fun]," said {N}. %END"""),
("snow", "and the first snow", "It snows. {N} and {F} build a snowman with {a_obj}.", """
%INTRO One [cold morning|winter morning], {N} looked out of the window. Everything was white. "[It is snowing|Snow, snow]!" {he} [shouted|cried]. {He} put on [{his} warm coat|{his} boots and {his} scarf] and ran outside.

{F} the {fkind} was [already there|outside, too]. "[Let us build a snowman|Come, we will make a snowman]!" said {F}. They rolled [a big ball and a small ball|three big balls of snow]. They used [stones|buttons|nuts] for the eyes and a carrot for the nose. "[Something is missing|He needs one more thing]," said {N}. {He} ran home and came back with {a_oadj_obj}. {He} gave it to the snowman.

"[Now he is perfect|He looks wonderful]!" said {F}. They [threw snowballs|went down the hill on a sled|danced around the snowman] until their [noses were red|feet were cold]. Then they went inside and drank [hot chocolate|warm milk|hot tea with honey]. [At night|In the evening], the snowman [stood in the moonlight|looked at the stars] and seemed to smile. %END"""),
("seed", "who planted a seed", "{N} plants a seed, waits patiently, and it grows.", """
%INTRO One day, {N} found a [tiny|small|little] seed. "[What will it be|I wonder what it is]?" {he} said. {He} [dug a hole|made a hole in the ground] and put the seed in it. {He} gave it water [every day|every morning].

But nothing happened. {N} waited and waited. "[It will never grow|Maybe it is not a seed]," {he} said. %MEET "[Be patient|You have to be patient|Good things take time]," said {F}. "[A seed needs time|It needs sun, water and time]." So {N} waited [some more|a little longer]. {He} [sang to the seed|talked to the seed|told the seed stories] and gave it water.

[One morning|After some days], there was a [tiny green leaf|small green plant]! {N} [jumped for joy|could not believe it|was so excited]. The plant grew and grew. Soon it was [as tall as {N}|taller than the fence], and it had [big {color} flowers|sweet {color} fruit|lovely {color} flowers].

{N} and {F} [sat under it|looked at it every day]. "[It was worth the wait|I am glad that I waited]," said {N}. {He} [learned to be patient|learned that good things take time]. %END"""),
("bake", "who baked {a_cake}", "{N} and {F} bake {a_cake}. It goes wrong at first, but in the end it is good.", """
%INTRO {N} [wanted to bake {a_cake}|had a plan: {he} wanted to bake {a_cake}] for {F}, {his} best friend. {F} was {a_fadj_fkind}.

{N} took [flour, eggs and milk|a big bowl, flour and sugar|butter, flour and eggs]. {He} [mixed everything|stirred and stirred]. But oh no! The bowl [fell down|tipped over], and there was flour [everywhere|on the floor, on the table and on {his} nose]. {N} looked like a [snowman|ghost]. {He} [wanted to cry|was sad].

Just then, {F} came in. {F} looked at {N} and [started to laugh|had to laugh]. Then {N} laughed, too. "[I will help you|Let us do it together]," said {F}. They cleaned the kitchen and started again. [{N} broke the eggs, and {F} stirred.|{F} read the recipe, and {N} stirred.|] They put the {cake} in the oven and waited.

Mmm, it smelled [so good|wonderful]! When the {cake} was done, they [put {berry} on top|put cream on top] and ate it [while it was warm|together]. "[This is the best {cake} ever|It is so yummy]," said {F}. "[Because we made it together|We are a good team]," said {N}. %END"""),
("race", "who was in a race", "{N} and {F} are in a race. {N} stops to help and is happy in the end.", """
%INTRO One day, there was a [big race|race] {inplace}. {N} wanted to win. The prize was {a_oadj_obj}. {F} the {fkind} wanted to win, too.

"Ready, set, go!" [called|shouted] the {judge}. Everyone ran. {N} was fast, but {F} was [faster|even faster]. Then {F} [fell over a stone|stepped into a hole|slipped in the mud] and hurt {fhis} foot. "Ouch!" {fhe} cried. [All the others ran on|Nobody stopped].

{N} [could win now|saw the finish line]. But {he} stopped. "[Are you okay|Can you walk]?" {he} asked. {F} shook {fhis} head. "[Lean on me|I will help you]," said {N}. They walked slowly to the finish line [side by side|together]. They were the last. But [everyone clapped|all the others cheered].

"[You did not win the race|You came in last], but you have a [kind|good] heart," said the {judge}. And {N} got [the {obj}|the prize] after all. {N} gave it to {F} and {F} said, "[Let us share it|It belongs to both of us]." %END"""),
("treasure", "who found a treasure map", "{N} finds a map. {N} and {F} follow it and find {a_obj}.", """
%INTRO One day, {N} found [an old map|an old piece of paper|a bottle with a map inside] [under a stone|in the attic|in the sand|in an old book]. There was a big red X on it. "[It is a treasure map|This must be a treasure map]!" {he} said. {He} [ran to|showed it to] {his} friend {F}, {a_fadj_fkind}. "[Let us find the treasure|Let us go]!" said {F}.

They walked [past the old tree|over the bridge|along the river]. They climbed [over a high wall|up a steep hill|over big rocks]. They crawled [through a dark tunnel|under a thick bush|into a small cave]. [Sometimes it was scary, but they held hands.|It was a long way, but they did not give up.|]

At last, they came to the X. They dug and dug. Clunk! There was a [box|chest|small wooden box]. {N} opened it slowly. Inside was {a_oadj_obj}. "[How wonderful|It is beautiful|Wow]!" said {F}. [There was also a note.|Next to it there was a note.] It said: "[The best treasure is a good friend|Whoever finds this must share it|A treasure is for sharing]."

{N} and {F} looked at each other and smiled. They [took the {obj} home|shared the {obj}] and [told everyone about their adventure|kept it in a special place]. %END"""),
("magic", "who found a magic {obj}", "{N} finds a magic {obj}, gets one wish, and uses it to help {F}.", """
%INTRO One day, {N} found {a_oadj_obj} [on the path|in the grass|near the water|under a tree]. {He} picked it up. Suddenly it [began to glow|started to shine] and a [soft|tiny] voice said, "I am a magic {obj}. You have one wish."

{N} [was so surprised|could not believe it]. "[What shall I wish for|What do I want most]?" {he} thought. "[A mountain of cookies|A big castle|A bag of gold]? [A thousand toys|A pair of wings|A golden crown]?" {He} thought and thought.

On the way home, {he} met {F} the {fkind}. {F} was crying. "[My leg hurts and I can not walk|My little brother is very sick|The storm took away our house]," said {F}. {N} felt sorry. {He} looked at the {obj}. Then {he} knew what to do. "I wish that [{F} is happy again|everything is good again for {F}]," {he} said.

The {obj} [glowed|shone] bright {color}, and [at once|in a moment] everything was good again. {F} [jumped up|laughed] and hugged {N}. "[You gave me your wish|You used your only wish for me]! Thank you!" The {obj} was [not magic any more|just a normal {obj} now]. But {N} did not mind. {He} [had a friend|felt warm inside], and that was better than [gold|any wish]. %END"""),
("storm", "and the big storm", "A storm breaks the house of {F}. {N} and the others help to build it again.", """
%INTRO One night, there was a big storm. The wind [howled|blew and blew], and the rain [beat against the window|fell hard]. {N} [hid under the blanket|was glad to be inside].

In the morning, the sun was shining. {N} went out and saw {his} friend {F} the {fkind}. {F} was [sitting on the ground|crying]. "The storm [broke|blew away] my house," said {F}. "[Now I have no home|I have nowhere to sleep]." {N} [put an arm around {F}|hugged {F}]. "You can stay with me," {he} said. "And we will build a new house."

{N} asked all the [neighbors|friends] to help. One brought wood. One brought [nails|stones]. One brought {a_oadj_obj}. They worked [all day|for three days], and they sang while they worked. [Soon|At last], the new house was ready. It was [even better|stronger and prettier] than the old one. They put the {obj} [over the door|on the table|in the window].

"[How can I thank you all|I do not know what to say]?" said {F}. "[That is what friends are for|You would do the same for us]," said {N}. [In the evening they had a party in the new house.|] %END"""),
("sick", "who visited a sick friend", "{F} is sick. {N} brings {a_obj} and soup, and {F} feels better.", """
%INTRO {N} wanted to play with {his} friend {F}, {a_fadj_fkind}. But {F} was sick in bed. "[My head hurts|I have a cold|My tummy hurts]," said {F}. "[I can not play today|I have to stay in bed]."

{N} was sad. But then {he} had [an idea|a good idea]. {He} went home and made [a big pot of soup|hot tea with honey|warm soup with carrots]. {He} also took {a_oadj_obj}. [Then {he} went back to {F}|{He} carried it all to the house of {F}]. "[This will make you feel better|This is for you]," said {N}.

{F} ate the soup, and {N} [read a story|told a funny story|sang a song]. {F} looked at the {obj} and laughed. "[You are so kind|Thank you for coming]," {fhe} said. "[I feel better already|Now I do not feel so bad]." Then {fhe} fell asleep.

{N} came back every day. After [three|four|a few] days, {F} was well again. They ran outside and played [in the sun|together all day]. "[When you are sick, I will make soup for you|Next time I will take care of you]," said {F}. %END"""),
("noise", "who heard a strange noise at night", "{N} hears a noise at night. It is only {F}, who needs help.", """
%INTRO One night, {N} was in bed. [Suddenly|Then] {he} heard a noise. {noise}, {noise2}, {noise2}. "[What is that|Who is there]?" {he} whispered. {N} pulled the blanket over {his} head. [Was it a monster|Was it a ghost]?

The noise came again. {noise}, {noise2}, {noise2}. {N} was scared, but {he} was also [curious|a little curious]. {He} took {a_oadj_obj} in {his} hand and went to the {door}. Slowly, {he} opened it.

It was not a monster. It was {a_fkind}! "[I am sorry|Please do not be angry]," said the {fkind}. "My name is {F}. [It is so cold outside|I am lost and cold], and I saw your light." {N} laughed. "[I thought that you were a monster|You scared me]! [Come in|Please come in]." {He} gave {F} [a warm blanket|some bread and milk|a soft pillow].

{F} slept next to the [warm stove|fire]. In the morning they had breakfast together. {N} was glad that {he} had opened the {door}. %END"""),
("hungry", "who fed a hungry {fkind}", "{N} gives {his} food to {F}, a hungry {fkind}, and gets help later.", """
%INTRO One day, {N} had {some_food} for lunch. {He} sat down [under a tree|on a bench|on a rock] and wanted to eat. Then {he} saw {a_fkind}. The {fkind} was thin and looked very hungry.

"[Here|Please], you can have [some of|half of] my {food}," said {N}. The {fkind} ate it [in one bite|quickly|all up]. "Thank you," {fhe} said. "I am {F}. [You are very kind|Nobody was ever so kind to me]." {N} was [still a bit hungry|still hungry], but {he} felt [good|warm] inside.

[Some days later|The next week], {N} [fell into the river|lost {his} {obj}|fell into a deep hole]. "Help!" {he} cried. Who came running? It was {F}! {F} [did not think twice|came at once]. {Fhe} helped {N} until everything was [good|fine] again. "[You helped me when I was hungry|You were kind to me]," said {F}. "[Now I can help you|Now it is my turn]."

{N} learned that kindness always comes back. %END"""),
("space", "who flew to the moon", "{N} and {F} build a rocket, fly to the moon, and come home.", """
%INTRO Every night, {N} looked at the moon. "[I want to go there|I wish I could fly to the moon]," {he} said. {His} friend {F} the {fkind} said, "[Then let us build a rocket|We can build a rocket]!"

They took [an old box|old boxes and tape|some pots and pans], {a_obj} and a lot of [paint|glue]. [At last|After three days], the rocket was ready. They sat inside and counted: "Five, four, three, two, one, go!" Whoosh! The rocket flew up, up, up. The houses [looked as small as toys|got smaller and smaller]. [They flew past the clouds and the stars.|They waved to the birds and the clouds.|]

On the moon, everything was [quiet and white|silver and still]. They jumped [very high|as high as a house]. They [left the {obj} there as a present|put the {obj} on a hill of dust] [for the man in the moon|for the next visitors]. [Then they looked back and saw the Earth|From there they saw the Earth]. It was round and blue. "[Our home is so beautiful|How pretty our home is]," said {F}.

[When they were tired|After a while], they flew back home. {N}'s [mother|grandma] had made [pancakes|soup]. "Where have you been?" she asked. "[On the moon|We were on the moon]!" said {N}, and they all laughed. %END"""),
("greedy", "who wanted too much", "{N} wants more and more {objs}, and learns that enough is enough.", """
%INTRO {N} had {a_oadj_obj}. It was [nice|a very nice {obj}]. But {N} wanted more. "[One is not enough|I want another one]," {he} said. So {he} got a second {obj}, and then a third. Soon {he} had [ten|twenty|a hundred] of them. The house was so full that {he} could not [move|find {his} bed|open the door].

%MEET "[Why do you need so many|What do you do with all of them]?" asked {F}. {N} thought about it. "I do not know," {he} said. "[I can not even play with all of them|I can only use one at a time]." "[I do not have even one|I never had one]," said {F} [quietly|in a small voice].

{N} felt [bad|ashamed]. "[You can have one|Please take one]," {he} said. {F} was so happy that {fhe} [danced|jumped in the air]. [When {N} saw that, {he} had an idea.|Then {N} had an idea.] {He} gave one {obj} to every [child|friend] {inplace}. Now there was only one left, and it was enough.

{N}'s house was [neat again|not so full any more], and {he} had [many new friends|a lot of new friends]. {He} learned that [giving is better than having|you do not need much to be happy]. %END"""),
("sleep", "who could not sleep", "{N} can not sleep. {F} helps with a quiet song, and {N} falls asleep.", """
It was [late|night|very late], and [the moon was up|the stars were shining]. But {N}, {a_adj_kind}, could not sleep. {He} turned to the left. {He} turned to the right. {He} counted [sheep|stars]. Nothing helped.

[{N} got up and went to {F}|{He} went to {his} friend {F}], {a_fadj_fkind}. "I can not sleep," {he} said. "[My head is full of thoughts|I am not tired]." "[Come and sit with me|Lie down here]," said {F}. "[Listen to the night|Close your eyes and listen]. Do you hear the wind in the trees? Shhh, shhh, it says. [It wants the whole world to sleep|It sings for you]."

{F} put [a warm blanket|a soft blanket] around {N} and [sang a quiet song|hummed a soft song|told {him} about the {obj} that sleeps in its box]. {N} listened. {His} eyes [got heavy|grew heavy]. {He} [yawned|yawned a big yawn]. "[I am still not tired|I am not...]," {he} said, but then {he} was asleep.

{F} smiled. "Good night, {N}," {fhe} whispered. And [soon|in a little while] {F} was asleep, too. [The moon watched over them both.|The stars watched over them all night.]"""),
("proud", "who was too proud", "{N} is proud of the {obj} and laughs at {F}, but then {N} needs help and says sorry.", """
%INTRO {N} had {a_oadj_obj}. {He} thought that it was the [best|most beautiful] {obj} in the whole world. "[Look at my {obj}|Nobody has such a nice {obj}]!" {he} said to everyone. {He} laughed at {F} the {fkind}, because {F} [had only an old one|did not have one].

One day, {N} walked [around|down the road] with {his} nose in the air. {He} did not look where {he} was going. Splash! {He} fell into [a puddle|the pond|a ditch], and the {obj} fell in, too. "Help!" cried {N}. [Nobody wanted to help, because {he} had been so proud.|]

But {F} came. {F} [pulled {N} out|gave {N} a hand] and [got|found] the {obj} as well. {N} was [wet and ashamed|red in the face]. "[Why did you help me|Why are you so kind to me]? I laughed at you," {he} said. "[Because you needed help|It is right to help]," said {F}.

"I am sorry," said {N}. "[I was not nice to you|I will never laugh at you again]." {F} smiled and said, "[Let us be friends|That is all right]." Since then, {N} lets [everyone|all the others] play with {his} {obj}. %END"""),
("music", "who made music", "{N} finds {a_instr} and plays music with {F} and the others.", """
%INTRO One day, {N} found {a_oadj_instr} [in an old box|in the attic|at the market]. {He} tried to play it. [Toot|Plong|Pling]! It sounded [funny|a bit strange]. But {N} [liked it|did not stop]. {He} played every day, and soon it sounded [lovely|very nice].

[One evening|One day], {F} the {fkind} heard the music. "[How beautiful|That sounds great]!" said {F}. "[Can I play with you|May I sing with you]?" "Yes!" said {N}. So {N} played the {instr}, and {F} [sang|played on {a_obj}|clapped]. [Then more friends came.|Soon the others came, too.] One [had a drum|beat on a pot], one [whistled|rang a bell], and the little ones danced.

"[We are a band|Let us make a band]!" said {F}. They played {inplace}, and [everyone came to listen|all the people came]. [Even the birds stopped singing and listened.|Even the old [bear|goat] tapped with his foot.] When the music was over, everyone clapped [for a long time|and cheered].

"[Music makes everyone happy|It is best to play together]," said {N}. %END"""),
("shop", "who wanted to buy {a_obj}", "{N} saves money for {a_obj}, but buys something for {F} instead.", """
%INTRO In the window of a shop there was {a_oadj_obj}. {N} wanted it [so much|very much]. It cost ten coins. {N} had only two. So {he} [worked hard|helped the neighbors]. {He} [washed dishes|swept the yard|carried wood] and [watered the flowers|fed the hens|picked apples]. [Every day {he} got one coin.|For each job {he} got a coin.]

At last, {N} had ten coins. {He} ran to the shop. On the way {he} saw {F}, {a_fadj_fkind}. {F} was [crying|sad]. "[I lost the money for our bread|We have nothing to eat today]," said {F}. {N} looked at {his} coins. {He} looked at the {obj} in the window. Then {he} took {F} by the hand and bought [bread and milk|a big bread and cheese] for {F} and {fhis} family.

[The owner of the shop had seen everything|The old man in the shop saw it]. "[You have a good heart|That was very kind]," he said. "The {obj} is yours. [You do not have to pay for it|It is a present]." {N} [could not believe it|was so happy that {he} jumped]. {He} [thanked the man|said thank you three times] and played with the {obj} [together with {F}|with {F}] all day. %END"""),
("small", "who was too small", "{N} is sad to be small, but being small helps to save {F}.", """
%INTRO {N} was very small. {He} was too small to [reach the table|see over the wall|carry {a_obj}]. "[I wish I were big|I am too small for everything]," {he} [said|sighed]. [The others often laughed at {him}.|]

One day, everyone was [very upset|running around]. {F} the {fkind} was [stuck in a narrow hole|shut in a small room and the key was inside]. All the big ones tried to help, but [they did not fit|they were too big] through the hole. "[What can we do|Who can help]?" they cried.

"[Let me try|I can do it]," said {N}. {He} [crawled|slipped] through the hole. It was easy for {him}, because {he} was so small. Inside, {he} [took {F} by the hand|told {F} not to be afraid]. {He} [found another way out|opened the door from inside|pushed the stones away], and {F} was free.

"[Hooray for {N}|Three cheers for {N}]!" everyone shouted. "[You are small, but you are a hero|You saved {F}]!" As a thank you, {N} got {a_oadj_obj}. {N} [smiled|laughed]. Now {he} knew that [being small can be very good|everyone is good at something]. %END"""),
("dream", "who had a dream", "{N} dreams of flying with {a_obj}, meets {F} there, and wakes up happy.", """
%INTRO One night, {N} had a [strange|wonderful|funny] dream. In {his} dream, {he} had {a_oadj_obj} that could fly. {He} [sat on it|held on tight] and flew [out of the window|over the roofs|high above the trees].

{He} flew over [the sea|the mountains|a sea of clouds] and came to [a land where it snowed sugar|an island where the trees were blue|a town where all the houses were made of cake]. There {he} met {a_fadj_fkind} named {F}. "[Welcome|Hello]!" said {F}. "[We have been waiting for you|I will show you everything]." They [slid down a rainbow|swam in a lake of lemonade|danced with the stars] and [ate clouds|laughed a lot|caught a falling star].

"I want to stay here [forever|always]," said {N}. "[But your family will miss you|Your mother is waiting for you]," said {F}. "[You can come back every night|Just close your eyes, and you will be here again]." [{N} waved goodbye|They said goodbye], and the {obj} carried {him} home.

Then {N} woke up. The sun was shining. Was it only a dream? {He} looked next to the bed, and there was a small {color} [star|feather]. {N} [smiled|laughed]. [{He} could not wait for the next night.|Maybe it was not only a dream.|{He} kept it in a box next to {his} bed.]"""),
("egg", "who found an egg", "{N} finds an egg and keeps it warm. {F} the {baby} hatches.", """
%INTRO One day, {N} found an egg [in the grass|on the path|under a bush]. It was all alone. "[Where is your mother|You must be cold]," said {N}. {He} took it home and put it [in {a_cont} with a soft blanket|on a soft pillow next to the fire]. {He} kept it warm [day and night|every day and every night].

[One morning|After a week], there was a sound. Crack! The egg [moved|shook]. Crack, crack! Out came a tiny {baby}. [It was wet and had big eyes.|It looked at {N} and made a small sound.] "[Hello, little one|Welcome]," said {N}. "I will call you {F}."

{F} followed {N} everywhere. [When {N} walked, {F} walked.|When {N} ran, {F} ran.] When {N} slept, {F} slept. {N} [showed {F} the world|taught {F} many things] and gave {F} [bread and water|seeds and berries]. {F} grew and grew.

[One day|In spring], {F} was big enough to [find {fhis} own family|live with the others]. {N} was a little sad, but also proud. "[Come and visit me|Do not forget me]," {he} said. And {F} came to visit {N} every [week|Sunday]. %END"""),
("clean", "who had a messy room", "{N} can not find the {obj} in the messy room. {F} helps to clean, and they find it.", """
%INTRO {N}'s room was a big mess. There were [socks|toys|books] on the floor, [paper|crumbs] on the bed and [shoes|clothes] on the lamp. "[Please clean your room|You should clean your room]," said {his} mother. "[Later|Not now]," said {N}.

[The next day|Then] {N} wanted to play with {his} {obj}. But {he} could not find it. It was [not on the shelf|not in the box]. It was [not under the bed|not behind the door]. "[Someone took my {obj}|My {obj} is gone]!" {he} cried.

%MEET "[No wonder that you can not find it|Look at this mess]," said {F}. "[Let us clean up together|I will help you clean up]." They put the toys in the box. They put the books on the shelf. They put the socks in the [drawer|basket]. It was [fun|not so bad], because they sang while they worked.

And what was there, under the very last [shirt|pile]? The {obj}! "[Hooray|There it is]!" said {N}. Now {he} had {his} {obj} again, and a clean room, too. {N} [promised to clean up every day|cleans up every week now]. %END"""),
("boat", "who went on a boat trip", "{N} and {F} sail to an island, find {a_obj}, and come back.", """
%INTRO One day, {N} and {his} friend {F} the {fkind} built a [small boat|boat out of wood]. "[Where shall we go|Where do we want to go]?" asked {F}. "[To the island over there|Let us go to the little island]," said {N}. They packed [bread and apples|sandwiches and juice] and [sailed away|set off].

The sun was shining, and the water was blue. [Fish jumped next to the boat.|The waves rocked the boat.] [But then the wind grew strong|Then a big wave came], and the boat rocked from side to side. "[Hold on tight|Hold on]!" shouted {N}. They [held on to each other|held the sail with all their might] until the water was calm again.

On the island, they found {a_oadj_obj} [in the sand|between two rocks]. "[Who left it here|Who lost it]?" said {F}. [They built a castle out of sand|They climbed the highest tree] and ate their lunch. [It was like being pirates.|They felt like real pirates.]

When the sun went down, they sailed home. They took the {obj} with them [to remember the day|and put it in the window]. "[What an adventure|That was fun]!" said {N}. "[Tomorrow we will go even further|Let us do it again]," said {F}. %END"""),
("wait", "who had to wait", "{N} waits for {his} father, who comes home with {a_obj}.", """
%INTRO {N}'s father was [a sailor|away on a long trip]. "[When will Papa come home|When is Papa coming back]?" {N} asked every day. "[Soon|When the leaves fall|When the moon is round]," said {his} mother.

{N} [sat at the window|went to the hill] and looked down the road. [First came the postman.|First came a man with a cart.] Then came [the milkman|an old woman with a goose]. But {his} father did not come. {N} was sad. {F} the {fkind} sat down next to {him}. "[Let us wait together|I will wait with you]," said {F}. They [counted the birds|told each other stories|drew pictures] [so that|and] the time went by faster.

[At last|One evening], when the moon was big and round, someone came up the road. He had a big bag and a long beard. "Papa!" cried {N} and ran [as fast as {he} could|into his arms]. {His} father laughed and [lifted {him} up|swung {him} around]. He opened the bag and took out {a_oadj_obj}. "This is for you," he said.

The {obj} was [lovely|wonderful]. But the best thing was that {his} father was home again. %END"""),
("job", "who wanted to help", "{N} wants to be useful, tries many jobs, and finds what {he} is good at.", """
%INTRO {N} wanted to help, but {he} did not know how. {He} tried to help the baker, but {he} [ate all the buns|burned the bread]. {He} tried to help the farmer, but {he} [let the hens out|stepped on the carrots]. {He} tried to help the painter, but {he} [painted the cat|fell into the {color} paint]. "[I am not good at anything|I only make trouble]," said {N}.

%MEET {F} [had a problem|looked sad]. "[I am so alone today|Nobody wants to listen to me]," said {F}. {N} sat down and listened. {He} listened [for a long time|to everything]. {F} told {him} about {fhis} [old|lost] {obj}, and about the time when {fhe} was little. [They laughed and they cried a bit, too.|]

"[Now I feel so much better|You are the best listener in the world]," said {F}. "[Thank you for listening|Not many can listen like you]." {N} was surprised. "[So I am good at something|Is that a job]?" {he} asked. "[It is the best job of all|It is a very important job]," said {F}.

[Since then|From then on], everyone who was sad came to {N}. {N} listened to all of them. %END"""),
("together", "who worked together with a friend", "{N} wants to move {a_bigthing} alone. It works only together with {F} and the others.", """
%INTRO One morning, {a_bigthing} lay [in the middle of the road|in front of the door]. Nobody could get past. "[I am strong|I can do it]," said {N}. "I will move it [all alone|by myself]." {He} pushed. {He} pulled. But it did not move [at all|even a little].

%MEET "[Can I help you|Shall I help]?" asked {F}. "No, thank you. [I can do it alone|I want to do it alone]," said {N}. {He} pushed again until {he} was [red in the face|very tired]. Then {he} sat down. "[I can not do it|It is too heavy]," {he} said. "[Will you help me, please|Could you help me]?"

"[Of course|Gladly]," said {F}. They pushed together, and it moved a little. "[We need more friends|Let us call the others]," said {F}. So [they all came|everyone came]: the big ones and the small ones. [Someone tied a rope around it.|One of them brought {a_obj} to use as a tool.] "One, two, three!" they called, and [rumble, rumble|slowly], it rolled away.

[Everyone cheered|They all clapped]. "[Alone I was too weak|Alone I could not do it]," said {N}, "[but together we are strong|but together it was easy]." %END"""),
("swap", "who swapped things", "{N} swaps {his} {obj} for other things, misses it, and gets it back from {F}.", """
%INTRO {N} had {a_oadj_obj}, but {he} [was bored with it|did not like it any more]. {He} met a {swapper} with {a_obj2}. "[Shall we swap|Do you want to swap]?" asked {N}. So {N} got the {obj2}, and {his} {obj} was gone.

The {obj2} was nice for [one day|a little while]. But soon {N} missed {his} {obj}. "[I was silly|I should have kept it]," {he} said. "[It was old, but it was mine|I had so much fun with it]." {He} went back, but the {swapper} had given the {obj} away to {F} the {fkind}.

{N} went to {F}. "[Please, can I have my {obj} back|Could I please have my {obj} back]?" {he} asked. "I will give you the {obj2} for it." {F} [thought for a moment|looked at the {obj}]. "[I like the {obj}|It is a very good {obj}]," {fhe} said. "[But I can see that you need it more|But you love it more than I do]." And {F} gave it back.

{N} was so [happy|glad] that {he} [gave {F} the {obj2} and a hug|hugged {F} two times]. %END {N} never gave {his} {obj} away again."""),
("picnic", "who had a picnic", "{N} and {F} have a picnic. Ants take the food, but they still have fun.", """
It was a warm and sunny day. {N}, {a_adj_kind}, and {his} friend {F} the {fkind} wanted to have a picnic {inplace}. They took a blanket, {some_food}, and {a_obj}. "[This will be fun|What a lovely day]," said {F}.

They put [the blanket under a tree|everything on the soft grass] and went to [pick flowers|play with the {obj}]. When they came back, [the {food} was gone|there was no {food} any more]! "[Who ate our {food}|Where is our {food}]?" cried {N}. They saw [tiny footprints|a long line of crumbs]. They followed it [to an old tree|to a small hill].

There they found a [big family of ants|family of mice]. [All of them had full tummies.|They were having a party.] "[We are sorry|Please forgive us]," said the smallest one. "[We thought that you did not want it any more|We were so hungry]." {N} looked at {F}, and {F} looked at {N}. Then they both [laughed|had to laugh].

"[It is all right|That is okay]," said {N}. "[Next time, just ask us|Come and play with us]." The little ones showed them a place with [sweet berries|ripe strawberries|wild apples]. They all ate until they were full. %END"""),
("walk", "who went for a walk", "{N} and {F} see a big {thing} and help a little {small}.", """
{N} and {F} [went to|were in|walked through] {walk}. [It was a sunny day.|The sun was shining.|They were happy.|] They saw a big {thing}. "[Look at that|Wow, how big it is|Look, a big {thing}]!" said {N}. "[I have never seen such a big {thing}|It is the biggest {thing} in the world]," said {F}.

They [went closer|walked around it]. Behind the {thing} sat a little {small}. It was [alone|lost] and looked very sad. "[What is wrong|Can we help you]?" asked {N}. "[I can not find my mother|I lost my mother]," said the little {small}. {N} [gave it a hug|took it by the hand]. "[Do not cry|Don't be sad]," {he} said. "We will find her."

They looked [everywhere|all around]. {F} climbed on [a bench|a rock] and looked far away. "[I can see her|There she is]!" {fhe} called. The mother came running. "Thank you," she said. "[You are kind children|You are so kind]." She gave them {a_oadj_obj}.

{N} and {F} waved goodbye. [On the way home|In the evening], they [talked|laughed] about the big {thing} and the little {small}. It was a [good|wonderful] day."""),
("star", "who found a fallen star", "{N} finds a little star that fell from the sky. {F} helps to bring it back.", """
%INTRO One night, {N} saw a light [in the garden|behind the trees|in the grass]. {He} went closer. It was a tiny star! "[I fell from the sky|I slipped and fell down]," said the star. "[I want to go home|I want to go back to my family]." The star was [crying|sad], and its light was [weak|getting weaker].

"[I will help you|Do not cry]," said {N}. {He} put the star in {a_cont} and [carried it|ran] to {F}, {a_fadj_fkind}. "[How can we bring the star back|How can we reach the sky]?" asked {N}. {F} [thought hard|thought for a while]. "[The highest hill|The top of the mountain] is close to the sky," said {F}. "[Let us go there|Come, we will climb it]."

They climbed [all night|up and up]. The wind was cold, and [their feet hurt|the way was long], but they did not stop. At the top, {N} held the star up [high|as high as {he} could]. "[Now jump|Now fly]!" called {F}. The star [took a deep breath|shook itself] and [jumped|flew] up, up, up into the sky.

Now it shines there again, next to [its mother|the moon]. [Sometimes it blinks|It blinks every night], and {N} knows that it says [thank you|hello]. %END"""),
("school", "and the first day of school", "{N} is nervous on the first day of school, but meets {F} and has fun.", """
Today was {N}'s first day of school. {N} was {a_adj_kind}. {He} had a new bag, and in it was {his} {oadj} {obj} [for good luck|from home]. "[What if nobody likes me|What if I do everything wrong]?" {he} asked. "[You will be fine|Just be yourself]," said {his} mother and kissed {him}.

The school was [big|very big], and there were so many others. {N} sat down [in the last row|near the window]. {He} held {his} {obj} tight. Next to {him} sat {a_fkind}. The {fkind} looked [scared|nervous], too. "[Hello, I am {N}|Hi, my name is {N}]," said {N}. "[I am {F}|My name is {F}]," said the {fkind}. "[I like your {obj}|What a nice {obj}]!"

The teacher was [kind|very nice]. They [sang a song|learned the letter A|painted a picture]. [In the break|At noon], {N} and {F} [shared an apple|played tag] and showed each other their things. [{N} forgot that {he} had been scared.|]

When {his} mother came, {N} [ran to her|shouted from far away], "[School is great|I have a new friend]! [Can I go again tomorrow|May I come back tomorrow]?" %END"""),
]
FEARSCENE = {
 "any": "[They sat down and talked about it.|First they talked about it for a while.] \"[What is so bad about {fear}|Why are you afraid of {fear}]?\" asked {F}. {N} [thought about it|did not know]. \"[I do not know|I have always been afraid],\" {he} said. So they went to have a closer look. {N}'s [knees shook|heart beat fast]. {He} took one step, and then one more. [Nothing bad happened.|{F} stayed next to {him} all the time.] After a while, {N} [even smiled|was calm again|had to laugh].",
 "dark": "That night, {F} [turned off the light|blew out the candle]. It was [very dark|dark]. \"[Look at the window|Look up],\" said {F}. [Through the window they saw|There they saw] the moon and a thousand stars. \"[You can see them only when it is dark|Without the dark there would be no stars],\" said {F}. {N} looked and looked. It was [so beautiful|beautiful] that {he} forgot to be afraid.",
 "thunder": "Then there was a flash, and boom! {N} [jumped|hid behind {F}]. \"[The clouds are only playing the drums|It is just the clouds that bump into each other],\" said {F}. \"[Let us play along|We can be louder].\" They took [pots and spoons|two pots] and made noise. Boom, went the thunder. Bang, went {N}! Soon {N} was laughing.",
 "water": "They went to the [lake|pool|river]. First {N} put in only one toe. Then {he} put in {his} feet. {F} stayed close to {him}. [Step by step|Slowly], {he} went in. The water was [cool and soft|warm]. {F} splashed a little, and {N} splashed back. Soon they were both [wet and laughing|laughing].",
 "high": "They went to [a small hill|a little ladder]. \"[Just one step|Only one step],\" said {F}. {N} took one step, and then one more. {He} did not look down. {He} looked at {F}. After a while they were at the top. From there they could see [the whole valley|the whole town and the blue sea]. It was the best view {he} had ever seen.",
 "noise": "Then they heard a loud bang. {N} [put {his} hands over {his} ears|jumped]. \"[Let us see what it is|Let us find out what it is],\" said {F}. They [looked around the corner|opened the door]. It was only [a man with a hammer|the wind and an old door]. {N} laughed. Now that {he} knew what it was, it did not sound so scary.",
 "dog": "They went to the fence. The big dog came and [barked|looked at them]. {N}'s knees shook. \"Look at his tail,\" said {F}. The tail went from side to side. \"[He only wants to play|He wants to be your friend].\" {N} held out a hand, very slowly. The dog licked it. It [tickled|was warm and wet], and {N} had to laugh.",
 "spider": "They found a spider in the garden. {N} wanted to run away. \"[Look how small it is|It is much smaller than you],\" said {F}. \"[And look at its web|Just look at its web].\" There were drops of water on the web, and they shone like [pearls|little stars]. {N} came a bit closer. The spider only sat there and worked. It was not bad at all.",
 "school": "On the first day, {F} went with {N}. They walked [hand in hand|side by side]. In the school there were [bright pictures|many books] and a kind teacher. \"[Good morning|Welcome],\" she said with a smile. {N} sat next to {F}. They sang a song and drew a house. {N} forgot that {he} had been afraid.",
 "alone": "{F} gave {N} a [small stone|little {color} button]. \"[When you are alone, hold it|Keep it with you],\" said {F}, \"[and think of me|then you know that I think of you].\" The next day {N} was alone at home. {He} held it and thought of {F}. {He} drew a picture and sang a song. The time went by, and {he} was not afraid.",
 "monster": "That night, they took a light and looked under the bed. {N}'s heart [beat fast|went boom, boom, boom]. And what was there? Only an old sock and [some dust|a ball]. \"[Here is your monster|That is your monster],\" said {F}, and they both laughed. {N} put the sock on {his} hand and made it talk.",
}
SEQUELS = """The next day, {N} [woke up early|got up early] and went to see {F}. "[What shall we do today|What do you want to do today]?" asked {N}. "[Let us go to the river|Let us climb the hill|Let us build something]," said {F}. They [took the {obj} with them|packed some bread] and [walked through the grass|ran down the path]. On the way they met [an old turtle|a little bird|a tired donkey] who [needed help|was hungry|had lost the way]. {N} and {F} helped gladly. "[You are so kind|Thank you, you two]," said the [new friend|stranger]. [When the sun went down|In the evening], they went home, [tired but happy|happy and tired].
[After that|Some time later], {N} and {F} had [another adventure|a new idea]. They wanted to [build a house in a tree|make a big party|plant a garden]. {N} brought [wood|flowers|some paint], and {F} brought [a hammer|seeds|a long rope]. They worked [all day|the whole week]. It was not always easy. Once, {N} wanted to stop, but {F} said, "[We can do it|Just a little more]." When it was done, they [invited everyone|showed it to all their friends]. [There was cake and music.|They laughed and danced until it was dark.] {N} was very proud.
{N} [told the whole story to {his} family|ran home and told everything]. "[What a day|That is a wonderful story]," said {his} [mother|grandma]. "[And what did you learn|What will you do tomorrow]?" {N} thought about it. "[I learned that it is good to have friends|I will play with {F} again]," {he} said. Then {he} [brushed {his} teeth|put on {his} pajamas] and went to bed. [Outside, the moon was shining.|The stars were bright.] {N} closed {his} eyes and [dreamed of {F}|fell asleep at once].
One week later, {F} [came to visit|knocked at the door]. "I have a surprise for you," said {F}. {N} was [curious|excited]. {F} opened a [box|bag], and inside was {a_obj2}. "[It is for you|I made it for you], because you are my [best friend|friend]," said {F}. {N} [did not know what to say|was so happy]. {He} [hugged {F}|gave {F} a big hug]. They [played with the {obj2}|sat in the sun] until [it was time for dinner|the first stars came out]. The end.""".split("\n")
INSTR = "flute drum guitar violin trumpet piano harp banjo bell whistle horn".split()
CAKES = ["cake", "pie", "chocolate cake", "apple pie", "birthday cake", "honey cake", "carrot cake", "bread", "pizza"]
BIG = ["big stone", "big log", "fallen tree", "huge rock", "big snowball", "giant pumpkin", "broken cart"]
BABY = ["duckling", "chick", "bird", "turtle", "dragon", "dinosaur", "penguin", "owl", "goose"]
PLURAL = lambda w: w[:-1] + "ies" if w.endswith("y") and w[-2] not in "aeiou" else w + "es" if w.endswith(("s", "x", "ch", "sh")) else w[:-1] + "ves" if w.endswith("leaf") else w + "s"


ODD = OBJECTS + "cloud tree flower snowflake leaf potato carrot tomato bean cookie muffin pancake banana apple cactus mushroom raindrop teapot sunflower pear lemon candle toy pencil bus tram ship house bridge river hill shadow dream number letter song book wind comet planet galaxy toaster vacuum sandwich noodle onion pea walnut pony phoenix yeti goblin dwarf ogre ninja samurai detective scientist nurse pilot firefighter student grandmother grandfather uncle aunt baby vampire zombie mummy skeleton alien superhero cowboy viking centipede beetle moth wasp flamingo peacock ostrich walrus jellyfish eel lobster shrimp salmon trout gorilla chimpanzee rhino cheetah leopard jaguar lynx ferret weasel skunk possum armadillo sloth llama alpaca bison buffalo reindeer chameleon gecko toad newt toucan pelican stork heron raven falcon hawk vulture canary cuckoo turkey rooster".split()
SYL = "ka lo mi ri na zo bu ta le no sa vi ro ma ne pi lu do fa ze ki ra to mo ni be la ju ha xa wen tor lin dar mel bri fen gus rik sel tan vor yul zan".split()


_PRES = [(r"^who was ", "who is "), (r"^who lost ", "who loses "), (r"^who did not want", "who does not want"), (r"^who wanted ", "who wants "), (r"^who helped ", "who helps "), (r"was stuck", "is stuck"), (r"^who broke ", "who breaks "), (r"and told ", "and tells "), (r"^who got lost and wanted", "who gets lost and wants"), (r"and wanted ", "and wants "), (r"^who made ", "who makes "), (r"^who planted ", "who plants "), (r"^who baked ", "who bakes "), (r"^who found ", "who finds "), (r"^who visited ", "who visits "), (r"^who heard ", "who hears "), (r"^who fed ", "who feeds "), (r"^who flew ", "who flies "), (r"^who could not ", "who can not "), (r"^who had ", "who has "), (r"^who went ", "who goes "), (r"^who worked ", "who works "), (r"^who swapped ", "who swaps ")]


def present(w):
    for a, b in _PRES: w = re.sub(a, b, w)
    return w


WALK = [p for p in PLOTS if p[0] == "walk"][0]


class Story:
    pass


def story(r, plot=None, kind=None, obj=None, fkind=None, name=None):
    p = plot or (r.choice(PLOTS) if r.random() < 0.96 else WALK)
    h = who(r, kind); f = who(r, fkind, avoid=(h["name"],), role=1)
    if name: h["name"] = name
    while f["name"] == h["name"] or (f["kind"] == h["kind"] and not (kind and fkind)): f = who(r, fkind, avoid=(h["name"],), role=1)
    if p[0] == "egg" and not fkind: f = who(r, r.choice(BABY), avoid=(h["name"],), role=1)
    e = {}
    live, place = r.choice(LIVE), r.choice(PLACES)
    o = obj or r.choice(OBJECTS); o2 = r.choice([x for x in OBJECTS if x != o])
    food = r.choice(FOODS); adj, fadj, oadj = r.choice(ADJ), r.choice(ADJ), r.choice(OADJ + COLORS)
    if r.random() < 0.25: adj = ""
    if r.random() < 0.3: oadj = ""
    if r.random() < 0.3: fadj = ""
    he, his, him, self_ = PRON[h["g"]]; fhe, fhis, fhim, _ = PRON[f["g"]]
    sp = lambda a, k: an((a + " " + k).strip())
    cake = r.choice(CAKES); instr = o if o in INSTR else r.choice(INSTR); big = r.choice(BIG); fear = r.choice(FEARS[:10] if r.random() < 0.5 else FEARS); sk = r.choice(SKILLS)
    up = lambda s: s[0].upper() + s[1:]
    e.update(N=h["name"], kind=h["kind"], he=he, He=up(he), his=his, His=up(his), him=him, self=self_, F=f["name"], fkind=f["kind"], fhe=fhe, Fhe=up(fhe), fhis=fhis, fhim=fhim,
             a_kind=an(h["kind"]), a_adj_kind=sp(adj, h["kind"]), a_fkind=an(f["kind"]), A_fkind=up(an(f["kind"])), a_fadj_fkind=sp(fadj, f["kind"]),
             obj=o, a_obj=an(o), A_obj=up(an(o)), a_oadj_obj=sp(oadj, o), oadj=oadj, objs=PLURAL(o), obj2=o2, a_obj2=an(o2), food=food,
             some_food=(r.choice(["some ", "some good "]) + food) if food in MASS else sp(r.choice(["big ", "sweet ", "", "lovely "]).strip() if True else "", food),
             color=r.choice(COLORS), inlive=live[1] + " " + live[0], InLive=up(live[1] + " " + live[0]), inplace=place[1] + " " + place[0], place=place[0],
             fear=fear[0], skill=sk[0], skilling=sk[1], skillplace=sk[2], fail=sk[3], cake=cake, a_cake=an(cake) if cake != "bread" else "bread", berry=r.choice(["berries", "cherries", "strawberries", "nuts", "apples"]),
             instr=instr, a_instr=an(instr), a_oadj_instr=sp(oadj, instr), a_cont=an(r.choice("basket box bucket jar bag hat bowl backpack".split())), noise="%NOISE", thing=r.choice("tree tree dog dog slide boat balloon pumpkin castle cow horse bird fish stone cat tower truck house flower pond swing fountain snowman box statue".split()), small=r.choice("duck rabbit kitten puppy bird mouse lamb fox hedgehog goat bear owl".split()), walk=r.choice(["the park", "the park", "the forest", "the beach", "the zoo", "the market", "the woods", "the garden", "the farm", "the lake"]), swapper=r.choice(["goat", "boy", "goose", "girl", "fox"]), judge=r.choice(["owl", "teacher", "old goat", "mayor"]), bigthing=big, a_bigthing=an(big), baby=f["kind"], door=r.choice(["door", "window"]))
    e["noise"] = r.choice(["Tap", "Scratch", "Bump", "Knock", "Creak"]); e["noise2"] = e["noise"].lower()
    t = p[3].strip("\n").replace("{fear_scene}", FEARSCENE[fear[1]])
    t = t.replace("%INTRO2", r.choice([x + " " + y for x in INTRO for y in INTRO2[:4]])).replace("%INTRO", r.choice(INTRO) + (" " + r.choice(INTRO2) if r.random() < 0.35 else ""))
    t = t.replace("%MEET", r.choice(MEET))
    end = r.choice(ENDS) if r.random() < 0.85 else ""
    if "{obj}" in end and "{obj}" not in p[3]: end = ENDS[0]
    if end and r.random() < 0.12: end += " The end."
    t = t.replace("%END", end)
    t = expand(t, r, e)
    s = Story(); s.text = t; s.e = e; s.plot = p; s.h, s.f = h, f
    s.who = expand(p[1], r, e); s.who = s.who[0].lower() + s.who[1:]; s.who = present(s.who) if r.random() < 0.5 else s.who; s.plan = expand(p[2], r, e)
    low = t.lower()
    s.has_obj = re.search(r"\b" + re.escape(o) + r"\b", low) is not None
    s.has_food = re.search(r"\b" + re.escape(food) + r"\b", low) is not None
    s.has_place = place[0] in low or live[0] in low
    s.places = [x[0] for x in (live, place) if x[0] in low]
    return s


REASON = {"friend": "{he} had no friends|{he} was all alone|nobody wanted to play with {him}", "small": "{he} was too small|{he} was smaller than all the others", "lost": "{he} could not find {his} {obj}|{he} had lost {his} {obj}", "skill": "{he} could not {skill}|{he} wanted to {skill} but could not do it", "afraid": "{he} was afraid of {fear}", "sick": "{his} friend {F} was sick", "wait": "{his} father was away", "home": "{he} was lost|{he} could not find the way home", "sleep": "{he} could not sleep", "rain": "it was raining|{he} could not go outside", "job": "{he} did not know how to help"}


def sad(r):
    """plain text that starts as: The little robot was sad because ..."""
    k = r.choice(list(REASON)); p = [x for x in PLOTS if x[0] == k][0]
    s = story(r, p); e = s.e; h = "{N} was [sad|very sad|unhappy] because %s." if r.random() < 0.35 else "[The|The|A] %s {kind} was [sad|very sad|unhappy|crying] because %s. {His} name was {N}."
    why = "[" + REASON[k] + "]"
    h = h % why if h.count("%s") == 1 else h % (r.choice(ADJ), why)
    body = s.text
    if k not in ("sleep", "rain"):
        sents = body.split(". ")
        for i, x in enumerate(sents[:4]):          # the usual introduction is dropped
            if x.startswith(("Once", "There", "One day, there", "Long ago", "A long", "In ", "On ", "By ", "At ", "Under ", e["N"] + " was a", "He lived", "She lived", e["N"] + " lived")): continue
            return expand(h, r, e) + " " + ". ".join(sents[i:])
    return expand(h, r, e) + "\n\n" + body


def sequel(r, s):
    e = dict(s.e)
    t = expand(r.choice(SEQUELS), r, e)
    return t


if __name__ == "__main__":
    r = random.Random(5)
    for p in PLOTS:
        s = story(r, p); print("##", p[0], "|", s.e["a_kind"], s.who, "|", s.plan, "\n" + s.text + "\n--", sequel(r, s), "\n")
