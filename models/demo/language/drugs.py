"""Drug classes, their drugs, and the interactions between classes that textbooks agree on."""

# ruff: noqa: E501 — rows of a table stay on one line
from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from models.demo.language.items import Language

# id; class in Portuguese; class in English; drugs as pt/en, or one word where both agree
_CLASSES = """
nsaid; anti-inflamatório não esteroidal (AINE); nonsteroidal anti-inflammatory drug (NSAID); ibuprofeno/ibuprofen, naproxeno/naproxen, diclofenaco/diclofenac, cetoprofeno/ketoprofen, meloxicam, piroxicam
ace; inibidor da ECA; ACE inhibitor; enalapril, captopril, lisinopril, ramipril, perindopril
arb; bloqueador do receptor de angiotensina (BRA); angiotensin receptor blocker (ARB); losartana/losartan, valsartana/valsartan, candesartana/candesartan, telmisartana/telmisartan, olmesartana/olmesartan
bb; betabloqueador; beta blocker; propranolol, atenolol, metoprolol, carvedilol, bisoprolol
dhp; bloqueador de canal de cálcio di-hidropiridínico; dihydropyridine calcium channel blocker; anlodipino/amlodipine, nifedipino/nifedipine, felodipino/felodipine
nondhp; bloqueador de canal de cálcio não di-hidropiridínico; non-dihydropyridine calcium channel blocker; verapamil, diltiazem
thiazide; diurético tiazídico; thiazide diuretic; hidroclorotiazida/hydrochlorothiazide, clortalidona/chlorthalidone, indapamida/indapamide
loop; diurético de alça; loop diuretic; furosemida/furosemide, bumetanida/bumetanide, torasemida/torsemide
ksparing; diurético poupador de potássio; potassium-sparing diuretic; espironolactona/spironolactone, eplerenona/eplerenone, amilorida/amiloride
statin; estatina; statin; sinvastatina/simvastatin, lovastatina/lovastatin, atorvastatina/atorvastatin, rosuvastatina/rosuvastatin, pravastatina/pravastatin
macrolide; antibiótico macrolídeo; macrolide antibiotic; claritromicina/clarithromycin, eritromicina/erythromycin, azitromicina/azithromycin
quinolone; antibiótico fluoroquinolona; fluoroquinolone antibiotic; ciprofloxacino/ciprofloxacin, levofloxacino/levofloxacin, moxifloxacino/moxifloxacin, norfloxacino/norfloxacin
penicillin; antibiótico penicilina; penicillin antibiotic; amoxicilina/amoxicillin, ampicilina/ampicillin, oxacilina/oxacillin, piperacilina/piperacillin
cephalosporin; antibiótico cefalosporina; cephalosporin antibiotic; cefalexina/cephalexin, ceftriaxona/ceftriaxone, cefuroxima/cefuroxime, cefepima/cefepime
tetracycline; antibiótico tetraciclina; tetracycline antibiotic; doxiciclina/doxycycline, minociclina/minocycline
sulfa; antibiótico sulfonamida com trimetoprima; sulfonamide-trimethoprim antibiotic; cotrimoxazol/co-trimoxazole
vka; antagonista da vitamina K; vitamin K antagonist; varfarina/warfarin, femprocumona/phenprocoumon, acenocumarol/acenocoumarol
doac; inibidor direto do fator Xa; direct factor Xa inhibitor; apixabana/apixaban, rivaroxabana/rivaroxaban, edoxabana/edoxaban
p2y12; antiagregante plaquetário inibidor de P2Y12; P2Y12 antiplatelet; clopidogrel, prasugrel, ticagrelor
ssri; inibidor seletivo da recaptação de serotonina (ISRS); selective serotonin reuptake inhibitor (SSRI); fluoxetina/fluoxetine, sertralina/sertraline, paroxetina/paroxetine, citalopram, escitalopram
maoi; inibidor da monoamina oxidase (IMAO); monoamine oxidase inhibitor (MAOI); tranilcipromina/tranylcypromine, fenelzina/phenelzine, isocarboxazida/isocarboxazid
tca; antidepressivo tricíclico; tricyclic antidepressant; amitriptilina/amitriptyline, nortriptilina/nortriptyline, imipramina/imipramine, clomipramina/clomipramine
benzo; benzodiazepínico; benzodiazepine; diazepam, lorazepam, alprazolam, clonazepam, midazolam
opioid; opioide; opioid; morfina/morphine, codeína/codeine, tramadol, oxicodona/oxycodone, fentanila/fentanyl
gabapentinoid; gabapentinoide; gabapentinoid; gabapentina/gabapentin, pregabalina/pregabalin
triptan; triptano; triptan; sumatriptana/sumatriptan, rizatriptana/rizatriptan, zolmitriptana/zolmitriptan
ppi; inibidor da bomba de prótons; proton pump inhibitor; omeprazol/omeprazole, pantoprazol/pantoprazole, esomeprazol/esomeprazole, lansoprazol/lansoprazole
nitrate; nitrato; nitrate; nitroglicerina/nitroglycerin, dinitrato de isossorbida/isosorbide dinitrate, mononitrato de isossorbida/isosorbide mononitrate
pde5; inibidor da fosfodiesterase 5; phosphodiesterase 5 inhibitor; sildenafila/sildenafil, tadalafila/tadalafil, vardenafila/vardenafil
azole; antifúngico azólico; azole antifungal; fluconazol/fluconazole, itraconazol/itraconazole, cetoconazol/ketoconazole, voriconazol/voriconazole
sulfonylurea; sulfonilureia; sulfonylurea; glibenclamida/glyburide, gliclazida/gliclazide, glimepirida/glimepiride, glipizida/glipizide
biguanide; biguanida; biguanide; metformina/metformin
sglt2; inibidor de SGLT2; SGLT2 inhibitor; dapagliflozina/dapagliflozin, empagliflozina/empagliflozin, canagliflozina/canagliflozin
glycoside; glicosídeo cardíaco; cardiac glycoside; digoxina/digoxin
lithium; estabilizador do humor à base de lítio; lithium mood stabilizer; carbonato de lítio/lithium carbonate
thyroid; hormônio tireoidiano; thyroid hormone; levotiroxina/levothyroxine
analgesic; analgésico e antitérmico; analgesic and antipyretic; paracetamol/acetaminophen
antihistamine; anti-histamínico H1 de segunda geração; second-generation H1 antihistamine; loratadina/loratadine, cetirizina/cetirizine, desloratadina/desloratadine
corticosteroid; corticosteroide; corticosteroid; prednisona/prednisone, prednisolona/prednisolone, dexametasona/dexamethasone
rifamycin; rifamicina; rifamycin; rifampicina/rifampin
antifolate; antifolato; antifolate; metotrexato/methotrexate
mineral; suplemento mineral; mineral supplement; sulfato ferroso/ferrous sulfate, carbonato de cálcio/calcium carbonate
bisphosphonate; bifosfonato; bisphosphonate; alendronato/alendronate, risedronato/risedronate
beta2; agonista beta-2; beta-2 agonist; salbutamol/albuterol, formoterol, salmeterol
"""

# what happens (id; Portuguese; English; what to do, Portuguese; English)
_EFFECTS = """
bleeding; maior risco de sangramento; higher risk of bleeding; evite a associação ou vigie sangramentos de perto; avoid the combination or watch closely for bleeding
inr; aumento do INR e risco de sangramento; raised INR and bleeding; controle o INR com mais frequência; check the INR more often
no_anticoagulation; perda do efeito anticoagulante; loss of the anticoagulant effect; evite a associação ou escolha outro fármaco; avoid the combination or choose another drug
hyperkalemia; risco de hipercalemia; risk of hyperkalemia; monitore potássio e creatinina; monitor potassium and creatinine
kidney; risco de lesão renal aguda; risk of acute kidney injury; evite o uso prolongado e monitore a creatinina; avoid long use and monitor creatinine
lithium_toxicity; risco de intoxicação por lítio; risk of lithium toxicity; monitore o nível de lítio; monitor the lithium level
ulcer; risco de úlcera e hemorragia digestiva; risk of ulcer and gastrointestinal bleeding; evite ou use proteção gástrica; avoid or add stomach protection
serotonin; risco de síndrome serotoninérgica; risk of serotonin syndrome; evite a associação e vigie tremor, febre e agitação; avoid the combination and watch for tremor, fever and agitation
respiratory; risco de depressão respiratória; risk of respiratory depression; evite a associação ou use a menor dose; avoid the combination or use the lowest dose
hypotension; risco de hipotensão grave; risk of severe hypotension; não associe; do not combine them
bradycardia; risco de bradicardia e bloqueio AV; risk of bradycardia and AV block; evite ou monitore frequência cardíaca e ECG; avoid or monitor heart rate and ECG
digoxin_toxicity; risco de intoxicação digitálica; risk of digoxin toxicity; monitore digoxina e potássio; monitor digoxin and potassium
myopathy; risco de miopatia e rabdomiólise; risk of myopathy and rhabdomyolysis; suspenda a estatina ou troque o outro fármaco; stop the statin or change the other drug
absorption; menor absorção; reduced absorption; separe as doses em pelo menos 4 horas; separate the doses by at least 4 hours
hypoglycemia; risco de hipoglicemia; risk of hypoglycemia; monitore a glicemia de perto; monitor blood glucose closely
qt; risco de prolongamento do QT; risk of QT prolongation; evite a associação ou faça ECG; avoid the combination or do an ECG
marrow; risco de toxicidade da medula óssea; risk of bone marrow toxicity; evite a associação e controle o hemograma; avoid the combination and check the blood count
mtx; aumento do nível de metotrexato; raised methotrexate level; evite ou controle hemograma e creatinina; avoid or check blood count and creatinine
hypokalemia; risco de hipocalemia; risk of hypokalemia; monitore o potássio; monitor potassium
bronchospasm; risco de broncoespasmo; risk of bronchospasm; evite a associação em quem tem asma; avoid the combination in people with asthma
sedation; maior sedação; increased sedation; reduza a dose do benzodiazepínico; reduce the benzodiazepine dose
"""

# class + class = effect; "!" leaves out drugs whose pair is not established (English names)
_RULES = """
vka+nsaid=bleeding; doac+nsaid=bleeding; p2y12+nsaid=bleeding; p2y12+vka=bleeding; p2y12+doac=bleeding; vka+doac=bleeding
ssri+vka=bleeding; ssri+nsaid=bleeding; ssri+doac=bleeding; ssri+p2y12=bleeding
vka+macrolide=inr; vka+azole=inr; vka+quinolone=inr; vka+sulfa=inr
vka+rifamycin=no_anticoagulation; doac+rifamycin=no_anticoagulation; doac+azole=bleeding!fluconazole
ace+ksparing=hyperkalemia; arb+ksparing=hyperkalemia; ace+arb=hyperkalemia; ace+sulfa=hyperkalemia; arb+sulfa=hyperkalemia; ksparing+sulfa=hyperkalemia
nsaid+ace=kidney; nsaid+arb=kidney; nsaid+loop=kidney; nsaid+thiazide=kidney
nsaid+lithium=lithium_toxicity; thiazide+lithium=lithium_toxicity; ace+lithium=lithium_toxicity; arb+lithium=lithium_toxicity
nsaid+corticosteroid=ulcer; nsaid+antifolate=mtx; penicillin+antifolate=mtx!oxacillin; antifolate+sulfa=marrow
ssri+maoi=serotonin; ssri+triptan=serotonin; tca+maoi=serotonin; ssri+tca=serotonin; maoi+triptan=serotonin
opioid+benzo=respiratory; opioid+gabapentinoid=respiratory; benzo+gabapentinoid=respiratory
nitrate+pde5=hypotension
bb+nondhp=bradycardia; bb+glycoside=bradycardia; nondhp+glycoside=digoxin_toxicity
loop+glycoside=digoxin_toxicity; thiazide+glycoside=digoxin_toxicity; macrolide+glycoside=digoxin_toxicity
statin+macrolide=myopathy!azithromycin!rosuvastatin!pravastatin; statin+azole=myopathy!fluconazole!rosuvastatin!pravastatin; statin+nondhp=myopathy!rosuvastatin!pravastatin
quinolone+mineral=absorption; tetracycline+mineral=absorption; thyroid+mineral=absorption; bisphosphonate+mineral=absorption
quinolone+sulfonylurea=hypoglycemia; sulfa+sulfonylurea=hypoglycemia; azole+sulfonylurea=hypoglycemia; bb+sulfonylurea=hypoglycemia
macrolide+quinolone=qt; tca+quinolone=qt; tca+macrolide=qt; azole+quinolone=qt
corticosteroid+loop=hypokalemia; corticosteroid+thiazide=hypokalemia
bb+beta2=bronchospasm!atenolol!metoprolol!bisoprolol
azole+benzo=sedation!lorazepam!clonazepam
"""

# class pairs without an interaction that matters clinically at usual doses
_SAFE = """
analgesic: penicillin cephalosporin ace arb dhp statin ppi antihistamine thyroid thiazide biguanide ssri bb sulfonylurea beta2
antihistamine: penicillin cephalosporin ace arb statin biguanide ppi thiazide thyroid dhp bb ssri
penicillin: statin biguanide dhp ssri benzo ppi thyroid beta2 sglt2 gabapentinoid
cephalosporin: statin dhp ssri arb benzo beta2 thyroid gabapentinoid
biguanide: statin arb ppi ssri benzo
beta2: statin ppi arb dhp antihistamine
thyroid: ace arb dhp
gabapentinoid: statin ppi thyroid arb
"""


@dataclass(frozen=True)
class Drug:
    """One drug: its class and its name in each language."""

    class_id: str
    names: dict[Language, str]

    @property
    def id(self) -> str:
        """Its English name."""
        return self.names["en"]


@dataclass(frozen=True)
class Effect:
    """What an interaction does, and what to do about it."""

    id: str
    says: dict[Language, str]
    advice: dict[Language, str]


def _rows(table: str) -> list[list[str]]:
    return [[part.strip() for part in line.split(";")] for line in table.strip().splitlines()]


def _drug(class_id: str, entry: str) -> Drug:
    pt, _, en = entry.strip().partition("/")
    return Drug(class_id, {"pt": pt, "en": en or pt})


CLASS_NAMES: dict[str, dict[Language, str]] = {
    id_: {"pt": pt, "en": en} for id_, pt, en, _ in _rows(_CLASSES)
}
DRUGS = tuple(_drug(id_, e) for id_, _, _, drugs in _rows(_CLASSES) for e in drugs.split(","))
EFFECTS = {
    id_: Effect(id_, {"pt": pt, "en": en}, {"pt": do_pt, "en": do_en})
    for id_, pt, en, do_pt, do_en in _rows(_EFFECTS)
}


def members(class_id: str) -> tuple[Drug, ...]:
    """The drugs of a class."""
    return tuple(drug for drug in DRUGS if drug.class_id == class_id)


def _interactions() -> dict[frozenset[str], str]:
    found: dict[frozenset[str], str] = {}
    for row in _rows(_RULES):
        for rule in row:
            pair, _, outcome = rule.partition("=")
            effect, *left_out = outcome.split("!")
            first, second = pair.split("+")
            for one in members(first):
                for other in members(second):
                    if not {one.id, other.id} & set(left_out):
                        found[frozenset((one.id, other.id))] = effect
    return found


def _safe_pairs() -> frozenset[frozenset[str]]:
    classes = []
    for line in _SAFE.strip().splitlines():
        first, _, others = line.partition(":")
        classes += [frozenset((first, other)) for other in others.split()]
    return frozenset(
        frozenset((one.id, other.id))
        for one, other in combinations(DRUGS, 2)
        if frozenset((one.class_id, other.class_id)) in classes
    )


# {drug, drug} → id of the effect; the second holds the pairs known to go together
INTERACTIONS = _interactions()
SAFE_PAIRS = _safe_pairs()
