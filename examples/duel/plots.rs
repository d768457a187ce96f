//! The charts, as SVG text: lines with a band for the range, bars in groups, percentiles.

use std::fmt::Display;
use std::io;

use hdrhistogram::Histogram;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::full_palette::{BLUE_700, DEEPORANGE_700, GREY_600, TEAL_700};
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::figures::{Range, count};

pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const SIZE: (u32, u32) = (620, 360);
/// Height of the line with the signature.
const FOOT: u32 = 18;
const TITLE: (&str, u32) = ("sans-serif", 17);
const TEXT: (&str, u32) = ("sans-serif", 13);

/// One contender's line; x is drawn on a logarithmic scale.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) points: Vec<(f64, Range)>,
}

/// A labelled group of bars, one per contender.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) label: String,
    pub(crate) bars: Vec<(&'static str, f64)>,
}

/// A contender keeps its colour in all pictures.
pub(crate) fn colour(name: &str) -> RGBColor {
    match name {
        "readiness" => DEEPORANGE_700,
        "uring" => BLUE_700,
        _ => TEAL_700,
    }
}

/// Makes the pictures, each signed with what it was measured on and when, since each may be seen
/// alone.
#[derive(Debug)]
pub(crate) struct Painter<'a> {
    pub(crate) signature: &'a str,
}

impl Painter<'_> {
    /// Makes a picture of `size`, painted by `paint`.
    pub(crate) fn draw(
        &self,
        size: (u32, u32),
        paint: impl FnOnce(&Area<'_>) -> io::Result<()>,
    ) -> io::Result<String> {
        let mut text = String::new();
        {
            let whole = (size.0, size.1 + FOOT);
            let area = SVGBackend::with_string(&mut text, whole).into_drawing_area();
            area.fill(&WHITE).map_err(failed)?;
            let (picture, foot) = area.split_vertically(size.1);
            paint(&picture)?;
            let style = ("sans-serif", 10).into_font().color(&GREY_600);
            let signature = Text::new(self.signature.to_owned(), (8, 2), style);
            foot.draw(&signature).map_err(failed)?;
            area.present().map_err(failed)?;
        }
        Ok(text)
    }

    /// Medians over a logarithmic x, with least and most as a band.
    pub(crate) fn lines(
        &self,
        title: &str,
        x: &str,
        y: &str,
        lines: &[Line],
    ) -> io::Result<String> {
        let points = || lines.iter().flat_map(|line| &line.points);
        let left = points().map(|(x, _)| *x).fold(f64::INFINITY, f64::min);
        let right = points().map(|(x, _)| *x).fold(0.0, f64::max);
        let top = points().map(|(_, range)| range.most).fold(0.0, f64::max);
        if top <= 0.0 {
            return Ok(String::new());
        }
        self.draw(SIZE, |area| {
            let mut chart = ChartBuilder::on(area)
                .caption(title, TITLE)
                .margin(12)
                .x_label_area_size(40)
                .y_label_area_size(64)
                .build_cartesian_2d((left / 1.3..right * 1.3).log_scale().base(2.0), 0.0..top * 1.3)
                .map_err(failed)?;
            chart
                .configure_mesh()
                .x_desc(x)
                .y_desc(y)
                .x_label_formatter(&|x| format!("{x:.0}"))
                .y_label_formatter(&|y| count(*y))
                .label_style(TEXT)
                .light_line_style(WHITE)
                .draw()
                .map_err(failed)?;
            for line in lines {
                let colour = colour(line.name);
                let upper = line.points.iter().map(|(x, range)| (*x, range.most));
                let lower = line.points.iter().rev().map(|(x, range)| (*x, range.least));
                let band = Polygon::new(upper.chain(lower).collect::<Vec<_>>(), colour.mix(0.15));
                chart.draw_series([band]).map_err(failed)?;
                let medians = || line.points.iter().map(|(x, range)| (*x, range.median));
                chart
                    .draw_series(LineSeries::new(medians(), colour.stroke_width(2)))
                    .map_err(failed)?
                    .label(line.name)
                    .legend(move |(x, y)| {
                        PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
                    });
                let dots = medians().map(|point| Circle::new(point, 3, colour.filled()));
                chart.draw_series(dots).map_err(failed)?;
            }
            let place = SeriesLabelPosition::UpperLeft;
            let labels = &mut chart.configure_series_labels();
            labels.position(place).background_style(WHITE).border_style(GREY_600).label_font(TEXT);
            labels.draw().map_err(failed)
        })
    }

    /// Latency over 1/(1-p): each further nine is one step to the right, so that tails can be seen.
    pub(crate) fn percentiles(
        &self,
        title: &str,
        contenders: &[(&'static str, &Histogram<u64>)],
    ) -> io::Result<String> {
        let most = contenders.iter().map(|(_, histogram)| histogram.len()).max().unwrap_or(0);
        let top = contenders.iter().map(|(_, histogram)| histogram.max()).max().unwrap_or(0) as f64;
        let least =
            contenders.iter().map(|(_, histogram)| histogram.min()).min().unwrap_or(0) as f64;
        if most < 100 || top <= 0.0 {
            return Ok(String::new());
        }
        let right = (most as f64).min(1e6);
        self.draw(SIZE, |area| {
            let mut chart = ChartBuilder::on(area)
                .caption(title, TITLE)
                .margin(12)
                .x_label_area_size(40)
                .y_label_area_size(64)
                .build_cartesian_2d(
                    (1.0..right).log_scale(),
                    (least.max(1e3) / 1e3 / 1.5..top / 1e3 * 1.3).log_scale(),
                )
                .map_err(failed)?;
            chart
                .configure_mesh()
                .x_desc("percentile")
                .y_desc("microseconds")
                .x_label_formatter(&percent)
                .y_label_formatter(&|y| count(*y))
                .label_style(TEXT)
                .light_line_style(WHITE)
                .draw()
                .map_err(failed)?;
            for (name, histogram) in contenders {
                let colour = colour(name);
                let steps = (0..=240).map(|step| right.powf(f64::from(step) / 240.0));
                let points = steps.map(|x| {
                    let nanoseconds = histogram.value_at_quantile(1.0 - 1.0 / x);
                    (x, nanoseconds as f64 / 1e3)
                });
                chart
                    .draw_series(LineSeries::new(points, colour.stroke_width(2)))
                    .map_err(failed)?
                    .label(*name)
                    .legend(move |(x, y)| {
                        PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
                    });
            }
            let place = SeriesLabelPosition::UpperLeft;
            let labels = &mut chart.configure_series_labels();
            labels.position(place).background_style(WHITE).border_style(GREY_600).label_font(TEXT);
            labels.draw().map_err(failed)
        })
    }

    /// Bars in groups, each with its value on top.
    pub(crate) fn bars(&self, title: &str, y: &str, groups: &[Group]) -> io::Result<String> {
        let values = groups.iter().flat_map(|group| &group.bars);
        let top = values.map(|(_, value)| *value).fold(0.0, f64::max);
        if top <= 0.0 {
            return Ok(String::new());
        }
        self.draw(SIZE, |area| {
            let label = |x: &f64| {
                let place = x.floor();
                let middle = (x - place - 0.5).abs() < 0.01 && place >= 0.0;
                let group = if middle { groups.get(place as usize) } else { None };
                group.map(|group| group.label.clone()).unwrap_or_default()
            };
            let mut chart = ChartBuilder::on(area)
                .caption(title, TITLE)
                .margin(12)
                .x_label_area_size(30)
                .y_label_area_size(64)
                .build_cartesian_2d(0.0..groups.len() as f64, 0.0..top * 1.4)
                .map_err(failed)?;
            chart
                .configure_mesh()
                .disable_x_mesh()
                .x_labels(groups.len() * 2 + 1)
                .x_label_formatter(&label)
                .y_desc(y)
                .y_label_formatter(&|y| number(*y))
                .label_style(TEXT)
                .light_line_style(WHITE)
                .draw()
                .map_err(failed)?;
            for (place, group) in groups.iter().enumerate() {
                let bars = group.bars.len().max(1) as f64;
                let width = (0.7 / bars).min(0.2);
                for (index, (name, value)) in group.bars.iter().enumerate() {
                    let left = place as f64 + 0.5 + (index as f64 - bars / 2.0) * width;
                    let corners = [(left, 0.0), (left + width * 0.94, *value)];
                    let colour = colour(name);
                    let drawn = chart
                        .draw_series([Rectangle::new(corners, colour.filled())])
                        .map_err(failed)?;
                    if place == 0 {
                        drawn.label(*name).legend(move |(x, y)| {
                            Rectangle::new([(x, y - 5), (x + 14, y + 5)], colour.filled())
                        });
                    }
                    let at = (left + width * 0.47, value + top * 0.02);
                    let style = TEXT.into_font().color(&BLACK);
                    let style = style.pos(Pos::new(HPos::Center, VPos::Bottom));
                    chart.draw_series([Text::new(number(*value), at, style)]).map_err(failed)?;
                }
            }
            let place = SeriesLabelPosition::UpperRight;
            let labels = &mut chart.configure_series_labels();
            labels.position(place).background_style(WHITE).border_style(GREY_600).label_font(TEXT);
            labels.draw().map_err(failed)
        })
    }
}

/// The drawing library's errors are not `io::Error`s.
pub(crate) fn failed(error: impl Display) -> io::Error {
    io::Error::other(format!("drawing: {error}"))
}

/// 1/(1-p) back to per cent: 10 is 90 %, 1000 is 99.9 %.
fn percent(x: &f64) -> String {
    let digits = (x.log10().round() as usize).saturating_sub(2);
    format!("{:.digits$} %", (1.0 - 1.0 / x) * 100.0)
}

fn number(value: f64) -> String {
    if value >= 100.0 || value == 0.0 { count(value) } else { format!("{value:.2}") }
}
