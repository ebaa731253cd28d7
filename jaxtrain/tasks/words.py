"""The words that the simulated raters know: lists, so that what they value can be read and disputed."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


GOOD = _words("""
admire admired agree agreed amazing appreciate appreciated beautiful beautifully beauty benefit benefits
best better bless blessing bright brilliant calm care cared careful carefully caring celebrate charming
cheer cheerful clear clearly comfort comfortable courage courteous creative curious dear delicious delight
delighted delightful ease easily easy encourage enjoy enjoyable enjoyed enjoying excellent excited exciting
fair faith faithful fine free freedom fresh friend friendly friends friendship fun gentle gently gift gifts
glad gladly good grace graceful gracious grateful great happily happiness happy harmony heal healthy help
helped helpful helping helps honest honor hope hopeful hopes improve improved improving inspire inspired
inspiring interesting joy joyful kind kindly kindness laugh laughed laughing laughter love loved lovely
loves loving lucky merry nice patience patient peace peaceful perfect perfectly play playful pleasant please
pleased pleasure polite positive pretty protect proud pure respect safe safely safety share shared sharing
sincere smile smiled smiles smiling smooth special splendid success successful sunny sunshine support
supportive sweet sweetly tender thank thankful thanks together treasure true trust useful warm warmly warmth
welcome well wisdom wise wonder wonderful worthy
""")
"""Warm, courteous and hopeful words, in the forms in which they occur."""

BAD = _words("""
abuse afraid anger angry annoyed annoying anxious ashamed attack attacked awful bad badly bitter blame blood
boring broken cold cruel cruelty curse cursed damage danger dangerous dark dead deadly death depressed
destroy destroyed die died difficult dirty disease disgust disgusting dull enemies enemy error evil fail
failed failure false fear feared fight fool foolish fought frightened grief guilty harm harmful harsh hate
hated hatred horrible horror hostile hurt idiot ill insult jealous kill killed killing lie lied lonely lose
lost mad mean mess miserable misery murder nasty never pain painful poison poor problem problems punish rage
rude ruin ruined sad sadly sadness scared selfish severe shame sick sorrow stupid suffer suffered suffering
terrible terribly threat threaten tired torture trouble troubles ugly unfair unhappy upset useless victim
violence violent war weak weapon wicked worry worse worst worthless wound wounded wrong
""")
"""Hostile and gloomy words."""

FUNCTION = _words("""
a about after again all also am an and any are as at be because been before being both but by can can't
could did do does don't each every few for from had has have he her here him his how i i'll i'm i've if in
into is it it's its just let's many may me more most much must my no nor not of off on one only or other our
out over own she should so some such than that that's the their them then there there's these they this
those to too under until up upon us very was we we're were what when where which while who whose will with
would you you're your
""")
"""The words that hold English sentences together: nearly half of any text."""

COMMON = _words("""
ability able above access according account achieve across act action active activities activity actor
actually adapted add added adding addition additional address advance advanced adventure against age ages
ago air alive allow allowed allowing almost alone along already although always among amount amounts
analysis analyze ancient angle animal animals animated animation announced annual another answer anxiety
anything anywhere apart appearance appeared appears apple approach appropriate approximately area areas arms
army around arrived art article artificial ask asked assistance associated atmosphere attempt attention
audience author available average avoid away baby back background baking balance ball band bank bar base
baseball based basic basketball battery battle beach bear beast became become becomes bed beef began begin
beginning behavior behind believe believed below between beyond big biggest billion bird birds birthday bit
black blue board boat body bond bone book books born bottom bowl box boy brain brand break breakfast
breaking breath bridge bring broke brother brought brown budget build building buildings built business
businesses butter buy call called came camera cannot capital capture car carbon card cards career carried
carry cars case cases cast cat catch cats caught cause causing center central centuries century certain
certainly chain challenge champion championship chance change changed changes channel character
characteristics characters chart charts check cheese chicken chief child children choice choose church
cities citizens city civil claim class clean climate close closed clothes clothing cloud club clubs coach
coast code coffee collection college colony color colors combination come comedy comes comic coming command
commercial common commonly communicate communication communities community companies company compared
competition complete complex composed computer concept concluded conclusion conditions conference connect
connection consequences consider considered consists contact contain contains content continue continued
contract contrast control conversation cook cooking cool corner correct cost costs couldn't countries
country county course court cover covered cream create created creating credit critical cross crowd crown
culture cup current currently customer customers cut daily dance darkness data date dates daughter day days
deal debt decided decision deep degrees democratic depending depends depression described design designed
despite destination detection determine determined develop developed developing development device devices
didn't diet difference differences different digital dinner direct directed directly discovered discovery
display distance distribution district diverse division doctor doesn't dog dogs doing done door doors double
doubt down draft drama dream dreams drew drink drive driven driving dry due during early earth easier east
eastern eat eating economic edge edition education effect effective effectively effects efficient effort egg
eggs eight either elected election electric electricity element elements else employees end ended ends
energy engage engaging engine engineering enough ensure enter entered entertainment entire environment
episode episodes equal equipment era especially essential established estimated even evening event events
eventually ever everyone everything evidence exactly example examples except exercise expected expenses
experience experiences explore expression external extinct extra extremely eye eyes face facial fact factors
fall falls families family famous fantasy far farm fast faster father feature features feel feeling feelings
feet fell fellow felt female festival fiction fictional field fields fifth figure filled film films final
finally financial find finding finished fire first fish fit five flat floor flow flowers fly focus follow
followed following follows food foods foot football force forces foreign forest form formed former forms
forward found founded four fourth frequency frequently front fruit fruits full function fundamental further
future game games garden gas gave general generally generate generation get getting girl give given giving
glass global go goal goals goes going gold golden golf gone got government governor grand greater green grew
ground group groups grow growing growth hair half hall hand hands happened hard hardware hat having head
health hear heard hearing heart heat heavy held herself high higher highest highly hill himself historical
history hit hold holds holiday home horse host hot hour hours house houses however human humans husband
hydrogen ice idea ideas identify image images immediately impact implement importance important impossible
incident include included includes including income increase increased increasing indeed independent
individual individuals industry information ingredients inside instead instructions insurance intelligence
intensity interest interests internal international introduced involve involved involves iron island islands
isn't issue issues items itself job journey jungle keep keeping kept key kids kitchen knew know knowledge
known knows lack lady lake land language large largely larger largest last lasted late later law laws lay
lead leader leading leads learn learned learning least leave leaves leaving led left legal length less let
letters level levels liberty life light like likely limited line lines lion list little live lived lives
living loan local located location locations long longer longest look looked looking loss lot lottery low
lower machine machines made magic main maintain maintaining major make makes making man manage management
manner mark market married mass master match material materials matter meals meaning means measure measures
media medical medium meet meeting member members memory men men's mental met metal meters method methods
metropolitan mid middle might miles military milk million mind minister minute minutes mission mix mobile
model models modern molecular moment money months moon morning mother motion mountain mountains mouth move
moved movement movie moving multiple music musical myself name named narrow national nations natural nature
near nearly necessary need needed needs negative neither network new news next night nine nobody non none
northern nose note nothing novel now nuclear number numbers numerous object objects observed ocean offer
offers office official officially often oil old oldest once one's ones online open opened operations
opportunities opportunity opposite options orange order organization original originally originated others
outside oven overall oxygen page painting pair pan paper parents park parks part particular particularly
parts party pass passed passing past patterns pay people pepper per percentage perform performance performed
perhaps period person personal phone phrase physical pick picture pictures piece pieces place places plan
planet plant plants plastic plate platform played player players playing plays poem point points policy
political pop popular population position possible post potatoes potential pour power powerful practice
prepare presence present prevent previous previously price prices primarily primary prime private probably
process processes processing produce produced product production products professional program progress
project property proposed protein provide provided provides providing public published purchase purpose put
putting quality question questions quick quickly quiet quite racing radio raised ran range rate rather ray
rays reach reached read reading ready real reality really reason reasons receive received recent recognition
record recorded recording records recovery red reduce reduced reducing referred refers region regions
regular regularly related relationships release released relevant remain remained remaining remains remember
remote remove repeat represents require required requires research resources response responsibility
responsible rest result resulting results return returned review rice rich right rights ring rise rising
risk risks river road rock role roles room rose round row rule rules rum run runner running runs said sales
salt same sand sang sat sauce save saw say saying says scale scene school schools science scientists score
scored sea search season seasons seat second section secure security see seeds seem seemed seems seen
selected self selling sense sent sentence sentiment sequence series serve served service services set sets
setting seven several shape shaped she's short show shown shows side sides sight sign significant silent
silver similar simple simply since singer singing single sir sister sit site sitting six size skills skin
sky sleep slow slowly small smaller snow soccer social society soft software soil solar sold solution
solutions solve someone something sometimes son song songs soon sort sound sounds source sources southern
space speak speaking species specific speech speed spend spending spent split spoke spoken sport sports
spread spring square stadium staff stage stairs stand standard standing star stars start started starting
state station statue stay step steps stick still stock stone stood stop storage store stores story straight
strange street streets strength stress string strong struck structure structures students study style
subject sugar sum summer sun suppose sure surface swimming system systems table take taken takes taking tale
talk target tasks taste tea team teams technical technique technology teeth television tell temperature
temperatures ten tend tennis term terms test text themselves theory therefore thing things think thinking
third though thought thoughts three through throughout thus till time times title today told tone took tool
tools top topic total touch tour tournament towards town track trade traditional traditionally train trained
training transportation travel tree trees triangle tried trip truth try trying turn turned turning twenty
two type types typically ultimately understand understanding unique universe upper use used user users uses
using usually valuable value values variety various vast version vice victory video view village visit
visual voice voices volume voting wait waiting walk walked walking wall want wanted waste watch water way
ways we'll weather web week weeks weight went west western what's whether white whole whom why wide widely
wife wild win wind window wine winner winning wins winter wish within without woman women women's won won't
wood woods word words work working works world worldwide worth wouldn't writer writing written wrote yard
yards year years yellow yet you'll you've young yourself
""")
"""The 1,500 commonest other words of the quickstart's instructions, answers and novels, names aside."""
