"""What the plugin adds to a study's page in Orthanc Explorer. Standard library only."""

from __future__ import annotations

from typing import Final

__all__ = ["STUDY_PART"]

#: A list beside the study: its state and why, and links to the pages that ask before anything is
#: done. It holds no secret and sends no form: what it knows it asks with the browser's own login.
#: Everything is put in as text. ``live`` is of Orthanc's jQuery 1.7.
STUDY_PART: Final = """
$('#study').live('pagebeforecreate', function () {
  $('<ul>').attr({
    id: 'prichexy-study', 'data-role': 'listview', 'data-inset': 'true',
    'data-theme': 'd', 'data-divider-theme': 'c'
  }).insertBefore($('#study-access'));
});
$('#study').live('pagebeforeshow', function () {
  var list = $('#prichexy-study').empty();
  var asked = $.mobile.pageData && $.mobile.pageData.uuid;
  if (!asked) { return; }
  function said(text) { $('<li>').css('white-space', 'normal').text(text).appendTo(list); }
  function link(text, address) {
    $('<li>').append($('<a>').attr({href: address, rel: 'external'}).text(text)).appendTo(list);
  }
  function shown(fill) {
    if ($.mobile.pageData && $.mobile.pageData.uuid === asked) {
      list.empty().append($('<li>').attr('data-role', 'list-divider').text('PriCheXy gateway'));
      fill();
      list.listview('refresh');
    }
  }
  $.ajax({
    url: '../prichexy/api/v1/orthanc/' + encodeURIComponent(asked),
    dataType: 'json',
    cache: false,
    success: function (study) {
      shown(function () {
        var page = '../prichexy/studies/' + encodeURIComponent(study.job_id);
        said(study.state + ': ' + study.sentence);
        link('Open in PriCheXy', page);
        if (study.on_desk) {
          link('Decide over it\\u2026', '../prichexy/desk/' + encodeURIComponent(study.job_id));
        }
        $.each(study.actions, function (_place, action) {
          link(action.title + '\\u2026', page + '/' + encodeURIComponent(action.name));
        });
      });
    },
    error: function (answer) {
      if (answer.status === 404) {
        shown(function () { said('The gateway does not know this study.'); });
      }
    }
  });
});
"""
