"""What we see in single test images that a network is most confidently wrong about.

Written by hand after looking at each, by their number in CIFAR-10's test set, in
English and Hebrew. An image without a remark has not been among a network's ten.
"""

REMARKS = {
    "en": {
        118: "a dark bird of prey before black",
        147: "a young owl whose round face fills the image",
        305: "a long, low convertible under a wide, pale sky",
        853: "a pickup truck, which should be in neither class",
        1718: "a seaplane on the water",
        3052: "a white cat in profile before bright green",
        3171: "a small plane on the ground, between buildings",
        3443: "a dark outline with a long neck, behind a fence",
        3789: "nothing but a wheel and a mudguard",
        4779: "a clear fire engine: the network's fault",
        4784: "a seaplane on the water",
        5511: "brown on brown in a round frame; we hardly see a cat",
        5548: "a sail and its reflection against the sky",
        5628: "an orange boat on its trailer, on land",
        6434: "a seaplane on the water",
        6669: "a thin dog in an orange coat on a wide lawn",
        7839: "brown, lying down; to us it looks more like a dog",
        8993: "a red biplane that stands on grass",
        9817: "a clear truck, but without its trailer",
    },
    "he": {
        118: "עוף דורס כהה על רקע שחור",
        147: "ינשוף צעיר שפניו העגולות ממלאות את התמונה",
        305: "מכונית פתוחה, ארוכה ונמוכה, תחת שמיים בהירים ורחבים",
        853: "טנדר, שלא היה אמור להופיע באף אחת משתי המחלקות",
        1718: "מטוס ימי על פני המים",
        3052: "חתול לבן מהצד על רקע ירוק בהיר",
        3171: "מטוס קטן על הקרקע, בין מבנים",
        3443: "צללית כהה עם צוואר ארוך, מאחורי גדר",
        3789: "רק גלגל וכנף של משאית",
        4779: "כבאית ברורה: זו טעות של הרשת",
        4784: "מטוס ימי על פני המים",
        5511: "חום על חום במסגרת עגולה; בקושי רואים שזה חתול",
        5548: "מפרש והשתקפותו על רקע השמיים",
        5628: "סירה כתומה על נגרר, ביבשה",
        6434: "מטוס ימי על פני המים",
        6669: "כלב רזה בכיסוי כתום על מדשאה רחבה",
        7839: "חיה חומה ושוכבת; בעינינו היא דומה יותר לכלב",
        8993: "מטוס אדום דו־כנפי שעומד על דשא",
        9817: "משאית ברורה, אבל בלי הנגרר שלה",
    },
}
