"""Symptoms and signs, how soon each needs care, and what it may mean."""

# ruff: noqa: E501 — rows of a table stay on one line
from __future__ import annotations

from dataclasses import dataclass

from models.demo.language.items import Language

LEVELS = ("emergency", "urgent", "routine")
LEVEL_NAMES: dict[Language, dict[str, str]] = {
    "pt": {"emergency": "Emergência", "urgent": "Urgente", "routine": "Rotina"},
    "en": {"emergency": "Emergency", "urgent": "Urgent", "routine": "Routine"},
}
ACTIONS: dict[Language, dict[str, str]] = {
    "pt": {
        "emergency": "Chame o SAMU (192) ou vá ao pronto-socorro agora.",
        "urgent": "Procure atendimento médico hoje.",
        "routine": "Marque uma consulta e volte se piorar.",
    },
    "en": {
        "emergency": "Call the emergency number or go to the emergency department now.",
        "urgent": "See a doctor today.",
        "routine": "Book an appointment and come back if it gets worse.",
    },
}

# Portuguese names (first canonical); English names; what it may mean, Portuguese; English
_TABLES = {
    "emergency": """
dor no peito em aperto|dor torácica em aperto|aperto forte no peito; crushing chest pain|squeezing chest pain|heavy pressure in the chest; síndrome coronariana aguda; acute coronary syndrome
fraqueza súbita de um lado do corpo|perda súbita de força em um braço e uma perna|hemiparesia súbita; sudden weakness on one side of the body|sudden loss of strength in one arm and leg|sudden hemiparesis; acidente vascular cerebral; stroke
fala enrolada de início súbito|dificuldade súbita para falar|boca torta de repente; sudden slurred speech|sudden trouble speaking|sudden facial droop; acidente vascular cerebral; stroke
falta de ar em repouso|dispneia intensa|muita falta de ar; shortness of breath at rest|severe dyspnea|severe shortness of breath; insuficiência respiratória; respiratory failure
lábios azulados|cianose|lábios roxos; blue lips|cyanosis|bluish lips; insuficiência respiratória; respiratory failure
inchaço da língua e da garganta|língua e lábios inchando|garganta fechando após um alimento; swelling of the tongue and throat|tongue and lips swelling|throat closing after a food; anafilaxia; anaphylaxis
febre com rigidez de nuca|febre e pescoço duro|rigidez de nuca com febre; fever with a stiff neck|fever and stiff neck|neck stiffness with fever; meningite; meningitis
a pior dor de cabeça da vida|cefaleia súbita e explosiva|dor de cabeça em trovoada; the worst headache of their life|sudden explosive headache|thunderclap headache; hemorragia subaracnoide; subarachnoid hemorrhage
convulsão há mais de cinco minutos|crise convulsiva que não para|convulsão prolongada; a seizure lasting over five minutes|a seizure that does not stop|prolonged seizure; estado de mal epiléptico; status epilepticus
vômito com sangue|hematêmese|vomitando sangue vivo; vomiting blood|hematemesis|throwing up bright red blood; hemorragia digestiva alta; upper gastrointestinal bleeding
perda de consciência que não se recupera|inconsciência|paciente não responde; loss of consciousness without recovery|unconsciousness|not responding to voice; coma; coma
confusão mental com febre e pressão baixa|febre com confusão e hipotensão|hipotensão, febre e sonolência; confusion with fever and low blood pressure|fever with confusion and hypotension|hypotension, fever and drowsiness; sepse; sepsis
dor abdominal intensa com barriga rígida|abdome em tábua|barriga dura e muito dolorosa; severe abdominal pain with a rigid belly|board-like abdomen|rigid and very painful belly; peritonite; peritonitis
dor súbita que rasga o peito e vai para as costas|dor lancinante no peito irradiando para as costas; sudden tearing chest pain going to the back|ripping chest pain radiating to the back; dissecção de aorta; aortic dissection
dor súbita em um testículo|dor testicular aguda e intensa; sudden pain in one testicle|acute severe testicular pain; torção testicular; testicular torsion
sangramento vaginal intenso na gravidez|hemorragia na gestação; heavy vaginal bleeding in pregnancy|hemorrhage during pregnancy; descolamento de placenta; placental abruption
perda súbita da visão de um olho|cegueira súbita em um olho; sudden loss of vision in one eye|sudden blindness in one eye; oclusão da artéria da retina; retinal artery occlusion
ideia de suicídio com plano|plano de se matar; suicidal thoughts with a plan|a plan to kill themselves; risco imediato de suicídio; immediate risk of suicide
queimadura extensa no rosto e no tronco|queimadura grande de rosto e tronco; an extensive burn on the face and trunk|large burns of face and trunk; queimadura grave; major burn
hálito cetônico e vômitos em diabético|diabético vomitando com hálito de fruta; fruity breath and vomiting in a diabetic|diabetic vomiting with fruity breath; cetoacidose diabética; diabetic ketoacidosis
""",
    "urgent": """
ardor ao urinar com febre|febre e dor para urinar|disúria febril; burning urination with fever|fever and pain on urination|febrile dysuria; pielonefrite; pyelonephritis
dor no lado direito inferior da barriga|dor na fossa ilíaca direita; pain in the lower right belly|right lower quadrant pain; apendicite; appendicitis
panturrilha inchada e dolorida|perna inchada e dolorosa de um lado só; a swollen painful calf|one swollen and painful leg; trombose venosa profunda; deep vein thrombosis
febre há mais de três dias|febre alta persistente; fever for more than three days|persistent high fever; infecção bacteriana; bacterial infection
tosse com catarro amarelo e febre|febre com tosse produtiva; cough with yellow sputum and fever|fever with productive cough; pneumonia; pneumonia
vômitos há dois dias sem segurar líquidos|não consegue segurar líquidos; vomiting for two days without keeping fluids down|cannot keep fluids down; desidratação; dehydration
diarreia com sangue|fezes com sangue e cólica; bloody diarrhea|blood in the stool with cramps; disenteria; dysentery
pele vermelha, quente e dolorosa na perna|vermelhidão quente que se espalha na perna; red, hot and painful skin on the leg|spreading hot redness on the leg; celulite; cellulitis
corte profundo que precisa de pontos|ferida profunda aberta; a deep cut that needs stitches|a deep open wound; ferida a suturar; wound needing suture
tornozelo inchado que não suporta peso|não consegue apoiar o pé após entorse; a swollen ankle that cannot bear weight|cannot put weight on the foot after a sprain; fratura; fracture
olho vermelho e doloroso|dor ocular com vermelhidão; a red painful eye|eye pain with redness; uveíte; uveitis
cólica forte no flanco|dor lombar em cólica que vai para a virilha; severe colicky flank pain|colicky pain from the loin to the groin; cálculo renal; kidney stone
pele e olhos amarelados|icterícia nova; yellow skin and eyes|new jaundice; doença hepática ou biliar; liver or bile duct disease
crise de asma leve|chiado no peito sem falta de ar em repouso; a mild asthma attack|wheezing without breathlessness at rest; exacerbação de asma; asthma exacerbation
mordida de cachorro|mordedura de cão; a dog bite|bitten by a dog; risco de raiva e infecção; risk of rabies and infection
dor de ouvido com febre|otalgia febril; earache with fever|febrile ear pain; otite média; otitis media
palpitações frequentes|coração disparando várias vezes ao dia; frequent palpitations|heart racing several times a day; arritmia; arrhythmia
bolhas dolorosas em faixa no tronco|vesículas dolorosas em um lado do tronco; painful blisters in a band on the trunk|painful vesicles on one side of the trunk; herpes-zóster; shingles
""",
    "routine": """
coriza e espirros|nariz escorrendo; runny nose and sneezing|a runny nose; resfriado comum; a common cold
dor de garganta leve|garganta um pouco irritada; a mild sore throat|slightly scratchy throat; faringite viral; viral pharyngitis
azia depois das refeições|queimação no estômago depois de comer; heartburn after meals|burning stomach after eating; refluxo; reflux
dor nas costas após esforço|lombalgia depois de carregar peso; back pain after effort|low back pain after lifting; lombalgia mecânica; mechanical back pain
coceira na pele há semanas|pele seca e com coceira; itchy skin for weeks|dry itchy skin; dermatite; dermatitis
prisão de ventre|intestino preso; constipation|hard stools; constipação funcional; functional constipation
dificuldade para dormir|insônia há meses; trouble sleeping|insomnia for months; insônia; insomnia
dor no joelho ao subir escadas|joelho dolorido nas escadas; knee pain on stairs|a sore knee when climbing stairs; osteoartrite; osteoarthritis
unha grossa e amarelada|unha do pé descolorida; a thick yellow toenail|a discolored toenail; micose de unha; nail fungus
acne no rosto|espinhas no rosto; acne on the face|pimples on the face; acne vulgar; acne vulgaris
receita de remédio contínuo para renovar|precisa renovar a receita; a repeat prescription to renew|needs a prescription refill; acompanhamento; follow-up
exame de rotina para mostrar|quer mostrar exames de rotina; routine test results to show|wants to show routine tests; acompanhamento; follow-up
dor de cabeça leve no fim do dia|cefaleia leve em aperto no fim do dia; a mild headache at the end of the day|a mild tight headache in the evening; cefaleia tensional; tension headache
olhos coçando na primavera|coceira nos olhos por pólen; itchy eyes in spring|eyes itching from pollen; conjuntivite alérgica; allergic conjunctivitis
verruga na mão|verruga no dedo; a wart on the hand|a wart on a finger; verruga viral; viral wart
cólica menstrual leve|cólica leve na menstruação; mild period cramps|mild menstrual cramps; dismenorreia primária; primary dysmenorrhea
""",
}


@dataclass(frozen=True)
class Finding:
    """One symptom or sign: its names, how soon it needs care, what it may mean."""

    id: str
    level: str
    names: dict[Language, tuple[str, ...]]
    means: dict[Language, str]


def _finding(level: str, line: str) -> Finding:
    pt, en, means_pt, means_en = (part.strip() for part in line.split(";"))
    names: dict[Language, tuple[str, ...]] = {
        "pt": tuple(pt.split("|")),
        "en": tuple(en.split("|")),
    }
    return Finding(names["en"][0], level, names, {"pt": means_pt, "en": means_en})


FINDINGS = tuple(
    _finding(level, line) for level in LEVELS for line in _TABLES[level].strip().splitlines()
)


def most_pressing(findings: tuple[Finding, ...]) -> Finding:
    """The finding that sets the level: the first named of those that need care soonest."""
    return min(findings, key=lambda finding: LEVELS.index(finding.level))
